"""Measurements. Each is a ratio against a peer or the raw engine in the same run, never an absolute promise."""
