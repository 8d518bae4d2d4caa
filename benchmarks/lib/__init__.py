"""Shared parts of the benchmarks: data, workloads, load generation, servers, estimates."""
