"""Stopping rules on simulated judges."""
