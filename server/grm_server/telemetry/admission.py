"""Metrics of who waits for the engine, and for how long."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class AdmissionMetrics:
    """The gauges are read at the scrape, see `Admission`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting_requests = Gauge("grm_waiting_requests", "Requests that wait for their turn.", registry=registry)
        self.waiting_samples = Gauge("grm_waiting_samples", "Samples they ask for, at most.", registry=registry)
        self.waiting_prompt_tokens = Gauge(
            "grm_waiting_prompt_tokens", "Tokens of their prompts, estimated.", registry=registry
        )
        self.running_samples = Gauge(
            "grm_running_samples",
            "Samples begun and not finished, those of audits left out.",
            registry=registry,
        )
        self.saturation = Gauge(
            "grm_engine_saturation",
            "Samples that the engine has, divided by those that it works on at once.",
            registry=registry,
        )
        self.drain_rate = Gauge(
            "grm_drain_rate",
            "Samples per second that the engine finishes while requests wait; 0 before that is known.",
            registry=registry,
        )
        self.refused = Counter(
            "grm_refused_requests",
            "Requests refused at once: too many `samples` or `prompt_tokens` wait, or the `deadline` is too near.",
            ["reason"],
            registry=registry,
        )
        self.wait_s = Histogram(
            "grm_turn_wait_seconds",
            "How long requests waited for their turn, also those whose deadline came first.",
            buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
            registry=registry,
        )
