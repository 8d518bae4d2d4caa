"""Grouping: responses that a trainer sends one by one are grouped by prompt and judged together."""
