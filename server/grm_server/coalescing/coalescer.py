"""Requests that ask for the same share one judgement: while it is made, and, if a cache is set, for a while after.

asked -> known? -> under way? -> judged -> known            See docs/design/coalescing.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Literal

from grm_server.caching.hashing import fingerprint
from grm_server.caching.single_flight import SingleFlight
from grm_server.caching.ttl_cache import TTLCache
from grm_server.grm.types import FailureReason, StopReason
from grm_server.judging.store import Judged, Judgements, chars, note
from grm_server.pipeline.types import ScoreRequest
from grm_server.telemetry.metrics import Metrics

JOINED_WITHIN = 0.5
"""Share of its deadline after which a judgement under way is not joined: a deadline would cut it too soon for those who
came late."""

Shared = Literal["in_flight", "cache"]
"""With whom: a request that was being judged, or one that had been."""


@dataclass(frozen=True, slots=True)
class Answered:
    """A judgement, and whose it is."""

    judged: Judged
    shared: Shared | None
    """None: made for this request."""


class Coalescer:
    """What one server is judging for /v1/rewards and for trainers' whole groups, and what it has judged of late.

    Its tables live as long as the engine that it is made for: model, templates, meta RM and calibration are in no key.
    """

    def __init__(
        self,
        judge: Callable[[ScoreRequest, str], Awaitable[Judged]],
        judgements: Judgements,
        metrics: Metrics,
        *,
        max_mib: int,
        ttl_s: float,
    ) -> None:
        """max_mib: text of judgements that is kept; 0 keeps none."""
        self._judge = judge
        self._judgements = judgements
        self._metrics = metrics
        self._flights: SingleFlight[bytes, Judged] = SingleFlight()
        self._known: TTLCache[bytes, Judged] = TTLCache(max_mib * 2**20, ttl_s)

    def __len__(self) -> int:
        """Judgements under way."""
        return len(self._flights)

    async def judge(self, request: ScoreRequest, task: str) -> Answered:
        """The judgement of this request or of an identical one. A judgement that all callers have left is aborted.

        Raises what `Judging.judge` raises, to all who share it.
        """
        key = same_answer(request, task)
        if (known := self._known.get(key)) is not None:
            self._metrics.shared_requests.labels("cache").inc()
            note(known)
            # By its id it is to be found for as long as it is given out.
            return Answered(self._judgements.keep(known), "cache")
        judged, joined = await self._flights.result(
            fingerprint(key.hex(), repr((request.deadline_s, request.priority, request.wait_until_deadline))),
            lambda: self._judged(key, request, task),
            young_s=JOINED_WITHIN * request.deadline_s,
        )
        if joined:
            self._metrics.shared_requests.labels("in_flight").inc()
            note(judged)
        return Answered(judged, "in_flight" if joined else None)

    async def _judged(self, key: bytes, request: ScoreRequest, task: str) -> Judged:
        judged = await self._judge(request, task)
        if _whole(request, judged):
            self._known.put(key, judged, chars(judged))
        return judged


def same_answer(request: ScoreRequest, task: str) -> bytes:
    """(16,), equal where one judgement answers both requests. What only says when it is wanted is left out.

    All fields count, also those that are yet to come: a `repr` of frozen dataclasses names every one of them.
    """
    seed = 0 if request.seed_is_free else request.seed
    return fingerprint(
        task, repr(replace(request, seed=seed, deadline_s=0.0, priority="normal", wait_until_deadline=False))
    )


def _whole(request: ScoreRequest, judged: Judged) -> bool:
    """Whether it is all that was asked for: nothing cut it, and nothing failed on the way."""
    judgement = judged.judgement
    lost_principles = request.principles_from == "query" and judged.principles_from == "sample"
    return (
        not lost_principles
        and judgement.stop_reason is not StopReason.DEADLINE
        and judgement.aggregate == request.aggregate
        and FailureReason.ENGINE_ERROR not in judgement.failures
    )
