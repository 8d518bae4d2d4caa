"""Prometheus metrics of how well the judge judges."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge, Histogram

_REMEMBERED = 200
_SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8, 1.0)


class QualityMetrics:
    """Of answered requests. What each number means is said where it is computed, in `grm.agreement`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.disagreement = Histogram(
            "grm_disagreement",
            "How often two samples of a request prefer opposite ones of two responses, 0 to 1; a coin has 0.5.",
            buckets=_SHARES,
            registry=registry,
        )
        self.consensus_auc = Histogram(
            "grm_meta_consensus_auc",
            "How often the meta RM rates a sample that agrees with the others above one that does not, by request; a "
            "coin has 0.5.",
            buckets=_SHARES,
            registry=registry,
        )
        self.tokens_per_reward = Histogram(
            "grm_tokens_per_reward",
            "Tokens that the judge wrote for a request, divided by its responses.",
            buckets=(32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536),
            registry=registry,
        )
        self._position = Gauge(
            "grm_position_effect_points",
            "Points that a response gains by standing `first` or `last`, mean over the last requests, some 200.",
            ["position"],
            registry=registry,
        )
        self._positioned = 0
        self._first = self._last = 0.0

    def position_effect(self, first: float, last: float) -> None:
        """Take in one request's effects, points."""
        self._positioned = min(self._positioned + 1, _REMEMBERED)
        self._first += (first - self._first) / self._positioned
        self._last += (last - self._last) / self._positioned
        self._position.labels("first").set(self._first)
        self._position.labels("last").set(self._last)
