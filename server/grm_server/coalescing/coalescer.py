"""Identical requests share one judgement: while it is in flight, and for a while after if a result cache is set.

request -> cached? -> in flight? -> judge and cache.            See docs/design/coalescing.md.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, Literal

from grm_server.caching.single_flight import SingleFlight
from grm_server.caching.ttl_cache import TTLCache
from grm_server.grm.types import FailureReason, StopReason
from grm_server.judging.store import Judged, JudgementStore, note_judged
from grm_server.pipeline.types import Priority, ScoreRequest
from grm_server.telemetry.metrics import Metrics

JOINED_WITHIN = 0.5
"""Share of its deadline in which a judgement in flight can be joined. A deadline would cut an older one too soon for
requests that join late."""

Shared = Literal["in_flight", "cache"]
"""Where a shared judgement came from."""

AnswerKey = tuple[ScoreRequest, str]
"""A request and the client's tag."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A judgement, and how the request got it."""

    judged: Judged
    shared: Shared | None
    """None: made for this request."""


class Coalescer:
    """Coalesces requests to /v1/rewards and trainers' whole groups.

    Lives as long as one engine, so the model, templates, meta RM and calibration are not part of any key.
    """

    def __init__(
        self,
        judge: Callable[[ScoreRequest, str], Coroutine[Any, Any, Judged]],
        store: JudgementStore,
        metrics: Metrics,
        *,
        max_mib: int,
        ttl_s: float,
    ) -> None:
        """max_mib: limit of the result cache; 0 disables it."""
        self._judge = judge
        self._store = store
        self._metrics = metrics
        self._in_flight: SingleFlight[tuple[AnswerKey, float, Priority, bool], Judged] = SingleFlight()
        self._cache: TTLCache[AnswerKey, Judged] | None = TTLCache(max_mib * 2**20, ttl_s) if max_mib else None

    def __len__(self) -> int:
        """Judgements in flight."""
        return len(self._in_flight)

    @property
    def waiting(self) -> int:
        """Requests that wait for a judgement, their own or a shared one."""
        return self._in_flight.callers

    async def judge(self, request: ScoreRequest, task: str) -> Answered:
        """The judgement of this request or of an identical one. It is aborted once all its requests are cancelled.

        Raises what `JudgeService.judge` raises, to all requests that share it.
        """
        key = answer_key(request, task)
        if self._cache is not None and (cached := self._cache.get(key)) is not None:
            self._metrics.shared_requests.labels("cache").inc()
            note_judged(cached)
            # Store it again: an id that was just returned can be looked up for a whole TTL.
            return Answered(self._store.put(cached), "cache")
        judged, joined = await self._in_flight.do(
            (key, request.deadline_s, request.priority, request.wait_until_deadline),
            lambda: self._judge(request, task),
            max_age_s=JOINED_WITHIN * request.deadline_s,
        )
        if joined:
            self._metrics.shared_requests.labels("in_flight").inc()
            note_judged(judged)
        if self._cache is not None and _is_complete(request, judged):
            self._cache.put(key, judged, judged.size, request.tenant)
        return Answered(judged, "in_flight" if joined else None)


def answer_key(request: ScoreRequest, task: str) -> AnswerKey:
    """Equal where one judgement answers both requests.

    All fields count, future ones too, except for those that only say how soon the answer is needed.
    """
    seed = 0 if request.seed_is_free else request.seed
    return replace(request, seed=seed, deadline_s=0.0, priority="normal", wait_until_deadline=False), task


def _is_complete(request: ScoreRequest, judged: Judged) -> bool:
    """Whether it is all that was requested: not cut by a deadline, no fallback used and no sample lost."""
    judgement = judged.judgement
    lost_principles = request.principles_from == "query" and judged.principles_from == "sample"
    return (
        not lost_principles
        and judgement.stop_reason is not StopReason.DEADLINE
        and judgement.aggregate == request.aggregate
        and FailureReason.ENGINE_ERROR not in judgement.failures
    )
