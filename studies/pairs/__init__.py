"""Pairs and singles in groups, on simulated judges."""
