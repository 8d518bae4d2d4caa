"""Benchmarks of robustness: attacks, engine kills, soak."""
