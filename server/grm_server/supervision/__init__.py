"""Detects dead and hung engines and restarts them. See docs/design/supervision.md."""
