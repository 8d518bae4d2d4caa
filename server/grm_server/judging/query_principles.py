"""Principles that are drawn once for a query, for all judgements of it. See docs/design/principles.md.

asked for? -> known? -> being drawn? -> drawn -> known          none to be had: each sample writes its own
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
from grm_server.grm.prompts import PrinciplesTemplate
from grm_server.grm.types import Fixed, Task
from grm_server.pipeline.query_principles import Drawn, draw_principles
from grm_server.pipeline.types import ScoreRequest
from grm_server.telemetry.metrics import Metrics

PATIENCE = 0.5
"""Share of the time until its deadline that a request waits for principles; the rest is for its samples."""
LEAST_CRITIQUE_TOKENS = 16
"""What a request may ask for at least."""

Origin = Literal["sample", "request", "query", "cache"]
"""Who wrote the principles: each sample its own, the caller, or the judge for the query, now or for another request."""


@dataclass(frozen=True, slots=True)
class Given:
    """A request as it is judged."""

    request: ScoreRequest
    """With the principles, and with the budget that is left to each critique. It asks for none to be drawn."""
    origin: Origin
    completion_tokens: int = 0
    """What was generated for it."""


class Principles:
    """The principles of the queries of late. Bounded by their text, and by time."""

    def __init__(
        self, template: PrinciplesTemplate, admission: Admission, metrics: Metrics, *, max_mib: int, ttl_s: float
    ) -> None:
        self._template = template
        self._admission = admission
        self._metrics = metrics
        self._flights: SingleFlight[bytes, Drawn] = SingleFlight()
        self._known: TTLCache[bytes, str] = TTLCache(max_mib * 2**20, ttl_s)

    def __len__(self) -> int:
        """Queries whose principles are being drawn."""
        return len(self._flights)

    async def given(self, request: ScoreRequest, arrived_s: float) -> Given:
        """The request with the principles of its query, if it asks for them; the caller's own win.

        arrived_s: on `time.monotonic`. Raises PromptTooLong, EngineDead, and what `Admission.permit` refuses with.
        """
        own = replace(request, principles_from="sample")
        if request.task.principles is not None:
            return Given(own, "request")
        if request.principles_from == "sample":
            return Given(own, "sample")
        key = same_principles(request)
        if (known := self._known.get(key)) is not None:
            self._metrics.principles.labels("cached").inc()
            return Given(_under(known, own), "cache")
        try:
            async with asyncio.timeout(PATIENCE * (arrived_s + request.deadline_s - time.monotonic())):
                drawn, joined = await self._flights.result(key, lambda: self._drawn(key, request, arrived_s))
        except TimeoutError:
            self._metrics.principles.labels("late").inc()
            return Given(own, "sample")
        spent = 0 if joined else drawn.completion_tokens
        if drawn.text is None:
            self._metrics.principles.labels("failed").inc()
            return Given(own, "sample", spent)
        self._metrics.principles.labels("cached" if joined else "drawn").inc()
        return Given(_under(drawn.text, own), "cache" if joined else "query", spent)

    async def _drawn(self, key: bytes, request: ScoreRequest, arrived_s: float) -> Drawn:
        """One sample, which waits for its turn as a request of its own: while it is written, others have the engine."""
        # The one response stands for none: a task without is no task.
        task = Task(request.task.query, ("",), request.task.reference)
        alone = replace(request, task=task, k=1, stop=Fixed(), max_critique_tokens=_budget(request))
        try:
            async with self._admission.permit(alone, arrived_s) as permit:
                # The seed is of the query, not of the request that came first: the order of arrival decides nothing.
                drawn = await draw_principles(
                    alone, int.from_bytes(key[:8]) >> 11, self._template, permit, self._metrics
                )
        except DeadlineExceeded:
            # Of who came first. Others may have more time, but not for this.
            return Drawn(None)
        if drawn.text is not None:
            self._known.put(key, drawn.text, len(drawn.text))
        return drawn


def same_principles(request: ScoreRequest) -> bytes:
    """(16,), equal where the same principles serve both requests: all that they are drawn from, and for whom."""
    said = (request.task.query, request.task.reference, _budget(request), request.temperature)
    return fingerprint(request.tenant, repr(said))


def _budget(request: ScoreRequest) -> int:
    """Tokens of principles: as many as a sample may spend on its own."""
    return request.max_critique_tokens // 2


def _under(principles: str, request: ScoreRequest) -> ScoreRequest:
    left = max(LEAST_CRITIQUE_TOKENS, request.max_critique_tokens - _budget(request))
    return replace(request, task=replace(request.task, principles=principles), max_critique_tokens=left)
