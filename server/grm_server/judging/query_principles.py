"""Principles drawn once per query and shared by all its judgements. See docs/design/principles.md.

cached? -> being drawn? -> draw and cache.      Fallback: each sample writes its own.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from typing import Literal

from grm_server.admission.controller import Admission
from grm_server.caching.hashing import fingerprint
from grm_server.caching.single_flight import SingleFlight
from grm_server.caching.ttl_cache import TTLCache
from grm_server.errors import DeadlineExceeded
from grm_server.grm.prompt_template import PromptTemplate
from grm_server.grm.stopping import Fixed
from grm_server.grm.types import Task
from grm_server.judging.formats import Formats
from grm_server.pipeline.query_principles import DrawnPrinciples, draw_principles
from grm_server.pipeline.types import ScoreRequest
from grm_server.telemetry.metrics import Metrics

PATIENCE = 0.5
"""Share of the time until its deadline that a request waits for principles. The rest is for its samples."""
LEAST_CRITIQUE_TOKENS = 16
"""Smallest `max_critique_tokens` that a request may ask for."""

Origin = Literal["sample", "request", "query", "cache"]
"""Who wrote the principles: each sample its own, the client, or the judge for the query, now or for an earlier
request."""


@dataclass(frozen=True, slots=True)
class GuidedRequest:
    """A request with its query's principles, as it is judged."""

    request: ScoreRequest
    """With the principles and the remaining budget of each critique. `principles_from` is `sample`."""
    origin: Origin
    completion_tokens: int = 0
    """Generated for this request to draw principles."""


class QueryPrinciples:
    """Principles of recent queries. The cache is limited by text size and TTL."""

    def __init__(
        self,
        formats: Formats,
        template: PromptTemplate,
        admission: Admission,
        metrics: Metrics,
        *,
        max_mib: int,
        ttl_s: float,
    ) -> None:
        self._formats = formats
        self._template = template
        self._admission = admission
        self._metrics = metrics
        self._in_flight: SingleFlight[bytes, DrawnPrinciples] = SingleFlight()
        self._cache: TTLCache[bytes, str] = TTLCache(max_mib * 2**20, ttl_s)

    def __len__(self) -> int:
        """Queries whose principles are being drawn."""
        return len(self._in_flight)

    async def apply(self, request: ScoreRequest, arrived_s: float) -> GuidedRequest:
        """Add the principles of the query to a request, unless it brings its own.

        Drawing counts against the deadline. After half of it, we fall back to per-sample principles.

        arrived_s: on `time.monotonic`. Raises PromptTooLong, EngineDead, and what `Admission.permit` refuses with.
        """
        plain = replace(request, principles_from="sample")
        if request.task.principles is not None:
            return GuidedRequest(plain, "request")
        key = same_principles(request)
        if (cached := self._cache.get(key)) is not None:
            self._metrics.principles.labels("cached").inc()
            return GuidedRequest(_with_principles(plain, cached), "cache")
        try:
            async with asyncio.timeout(PATIENCE * (arrived_s + request.deadline_s - time.monotonic())):
                drawn, joined = await self._in_flight.do(key, lambda: self._draw(key, request, arrived_s))
        except TimeoutError:
            self._metrics.principles.labels("late").inc()
            return GuidedRequest(plain, "sample")
        own_tokens = 0 if joined else drawn.completion_tokens
        if drawn.text is None:
            self._metrics.principles.labels("failed").inc()
            return GuidedRequest(plain, "sample", own_tokens)
        self._metrics.principles.labels("cached" if joined else "drawn").inc()
        return GuidedRequest(_with_principles(plain, drawn.text), "cache" if joined else "query", own_tokens)

    async def _draw(self, key: bytes, request: ScoreRequest, arrived_s: float) -> DrawnPrinciples:
        """One sample with a permit of its own, so the request holds no room in the engine meanwhile."""
        # A task needs at least one response; the empty one is not shown.
        task = Task(request.task.query, ("",), request.task.reference)
        alone = replace(request, task=task, k=1, stop=Fixed(), max_critique_tokens=_budget(request))
        # Seeded by the query and not by the request, so it does not matter which request comes first.
        seed = int.from_bytes(key[:8]) >> 11
        try:
            async with self._admission.permit(alone, arrived_s) as permit:
                form = self._formats.named(request.format)
                drawn = await draw_principles(alone, seed, form, self._template, permit, self._metrics)
        except DeadlineExceeded:
            # The first request's deadline. Requests that joined fall back instead of failing with it.
            return DrawnPrinciples(None)
        if drawn.text is not None:
            self._cache.put(key, drawn.text, len(drawn.text), request.tenant)
        return drawn


def same_principles(request: ScoreRequest) -> bytes:
    """(16,), equal where the same principles serve both requests: everything they are drawn from, and the tenant."""
    reference = request.task.reference
    sampling = (_budget(request), request.format, request.sampling, reference is None)
    turns = (text for message in request.task.query for text in (message.role, message.content))
    return fingerprint(request.tenant, repr(sampling), reference or "", *turns)


def _budget(request: ScoreRequest) -> int:
    """Tokens for principles: as many as a sample may spend on its own."""
    return request.max_critique_tokens // 2


def _with_principles(request: ScoreRequest, principles: str) -> ScoreRequest:
    left = max(LEAST_CRITIQUE_TOKENS, request.max_critique_tokens - _budget(request))
    return replace(request, task=replace(request.task, principles=principles), max_critique_tokens=left)
