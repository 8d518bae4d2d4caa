"""Benchmarks of serving: throughput, overhead, load, overload."""
