"""Prometheus metrics of the HTTP layer and of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram

OTHER = "other"
"""Route of requests that no route matched, or that were refused before routing."""
_LAG_INTERVAL_S = 0.25


class HTTPMetrics:
    """The label `route` is a route's template or `other`: clients cannot create new series."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "grm_http_requests",
            "HTTP requests, by route (`other`: none matched) and status.",
            ["route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "grm_http_seconds",
            "Time from a request's headers to the end of its response, by route.",
            ["route"],
            buckets=(0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
            registry=registry,
        )
        self.refused = Counter(
            "grm_door_refusals",
            "Requests refused before they were parsed, by error code.",
            ["code"],
            registry=registry,
        )
        self.loop_lag = Histogram(
            "grm_event_loop_lag_seconds",
            "How late the event loop resumed a sleeping task, measured four times a second.",
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
            registry=registry,
        )

    @asynccontextmanager
    async def watching_loop(self) -> AsyncIterator[None]:
        """Measure the event loop's lag while the block runs."""
        watch = asyncio.ensure_future(self._watch_loop())
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.wait((watch,))

    async def _watch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before_s = loop.time()
            await asyncio.sleep(_LAG_INTERVAL_S)
            self.loop_lag.observe(max(0.0, loop.time() - before_s - _LAG_INTERVAL_S))
