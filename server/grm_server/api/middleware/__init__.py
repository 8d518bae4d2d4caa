"""What every request passes before its route: pure ASGI middleware. `stack` fixes the order."""
