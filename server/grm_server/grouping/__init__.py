"""Responses that a trainer sends one by one are gathered by prompt and judged together."""
