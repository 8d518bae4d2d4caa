"""Engines that die or hang, and their restarts. See docs/design/supervision.md."""
