"""Prometheus metrics of engine restarts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


class EngineMetrics:
    """`engine` is `engine` or `meta_rm`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.restarts = Counter(
            "grm_engine_restarts",
            "Restarts of a dead engine: `restarted`, `failed`, or `given_up` after too many.",
            ["engine", "outcome"],
            registry=registry,
        )
        self.restart_s = Histogram(
            "grm_engine_restart_seconds",
            "Time from the detection of an engine's death until its successor accepted requests.",
            ["engine"],
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
            registry=registry,
        )
        self.replayed = Counter(
            "grm_samples_replayed",
            "Samples drawn again from their seeds because their engine died.",
            registry=registry,
        )
