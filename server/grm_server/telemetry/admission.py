"""Prometheus metrics of admission: the queue for the engine and refusals."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class AdmissionMetrics:
    """`Admission` computes the gauges at each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waiting_requests = Gauge("grm_waiting_requests", "Queued requests.", registry=registry)
        self.waiting_samples = Gauge("grm_waiting_samples", "Most samples that they may draw.", registry=registry)
        self.waiting_prompt_tokens = Gauge(
            "grm_waiting_prompt_tokens", "Tokens of their prompts, estimated.", registry=registry
        )
        self.running_samples = Gauge(
            "grm_running_samples", "Samples in the engine, without those of audits.", registry=registry
        )
        self.saturation = Gauge(
            "grm_engine_saturation",
            "Samples in the engine, divided by the number that it works on at once.",
            registry=registry,
        )
        self.drain_rate = Gauge(
            "grm_drain_rate",
            "Samples per second that the engine finishes while requests are queued; 0 until measured.",
            registry=registry,
        )
        self.refused = Counter(
            "grm_refused_requests",
            "Requests refused on arrival: too many queued `samples` or `prompt_tokens`, or the `deadline` is too near.",
            ["reason"],
            registry=registry,
        )
        self.wait_s = Histogram(
            "grm_turn_wait_seconds",
            "Time in the queue, including requests that timed out there.",
            buckets=(0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
            registry=registry,
        )
