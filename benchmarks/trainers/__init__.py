"""Benchmarks inside a trainer."""
