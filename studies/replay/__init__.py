"""Stopping rules replayed on a log of real samples."""
