"""ASGI middleware, in the order that `stack` defines."""
