"""Prometheus metrics of the HTTP layer and of the loop that all of it runs on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram

OTHER = "other"
"""The route of what no route took, or of what was refused before one was found."""
_LAG_EVERY_S = 0.25


class HTTPMetrics:
    """Routes are templates and one word for all else, so that callers cannot make new series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "grm_http_requests",
            "HTTP requests, by route (`other`: none) and status.",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "grm_http_seconds",
            "Time from a request's head to the end of its answer, by route.",
            ["route"],
            buckets=(0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
            registry=registry,
        )
        self.loop_lag = Histogram(
            "grm_event_loop_lag_seconds",
            "How much later than asked for the event loop came back, four times a second.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=registry,
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    @asynccontextmanager
    async def watching_loop(self) -> AsyncIterator[None]:
        """Measure the lag for as long as the block runs."""
        watch = asyncio.ensure_future(self._watch_loop())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait((watch,))

    async def _watch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(_LAG_EVERY_S)
            self.loop_lag.observe(max(0.0, loop.time() - before - _LAG_EVERY_S))
