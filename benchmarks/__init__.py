"""Benchmarks. Each result is a ratio to a peer or to the raw engine in the same run, never an absolute promise."""
