"""Admission control: which requests may generate, and when. See docs/design/admission.md.

request -> room in the engine and an empty queue? granted
        -> queue full, or the deadline cannot be met? refused at once
        -> otherwise queued: fair between tenants, by priority within one

Capacity is counted in samples, not requests. Samples reach the engine only through a permit, which counts them.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from grm_server.admission.fair_queue import FairQueue
from grm_server.admission.forecast import Forecast
from grm_server.admission.permit import AdmissionPermit, Cost, EngineLoad, cost_of
from grm_server.engine.protocol import JudgeEngine
from grm_server.errors import DeadlineExceeded, DeadlineUnreachable, Overloaded
from grm_server.pipeline.types import Priority, ScoreRequest
from grm_server.pipeline.vote import VoteRequest
from grm_server.telemetry.metrics import Metrics

UNKNOWN_S = 5
"""`Retry-After` before the engine's throughput is known."""
LONGEST_S = 600
"""`Retry-After` at most: forecasts reach no further."""
_RANKS: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What requests hold at one moment; all zero when there are none."""

    running_samples: int = 0
    load: int = 0
    """See `EngineLoad.total`."""
    unanswered_requests: int = 0
    """Requests with a permit and without an answer."""
    waiting_requests: int = 0
    waiting_samples: int = 0
    waiting_chars: int = 0
    """Of their prompts."""


class Admission:
    """Of one engine. All state belongs to current requests, except for the forecast."""

    def __init__(
        self,
        engine: JudgeEngine,
        metrics: Metrics,
        *,
        capacity: int,
        max_waiting_samples: int,
        max_waiting_prompt_tokens: int,
        template_chars: int,
    ) -> None:
        """capacity: samples in the engine from which on requests wait. template_chars: see `cost_of`."""
        self._engine = engine
        self._metrics = metrics.admission
        self._max_samples = max_waiting_samples
        self._max_tokens = max_waiting_prompt_tokens
        self._template_chars = template_chars
        self._queue: FairQueue[AdmissionPermit] = FairQueue()
        self._waiting_samples = self._waiting_chars = 0
        self._load = EngineLoad(capacity, self._serve_queue)
        self._forecast = Forecast(capacity)
        self._metrics.waiting_requests.set_function(lambda: self._load.waiting)
        self._metrics.waiting_samples.set_function(lambda: self._waiting_samples)
        self._metrics.waiting_prompt_tokens.set_function(lambda: self._forecast.tokens(self._waiting_chars))
        self._metrics.running_samples.set_function(lambda: self._load.running)
        self._metrics.drain_rate.set_function(lambda: self._forecast.per_s(time.monotonic()) or 0.0)

    def snapshot(self) -> Snapshot:
        return Snapshot(
            running_samples=self._load.running,
            load=self._load.total,
            unanswered_requests=len(self._load.unanswered),
            waiting_requests=self._load.waiting,
            waiting_samples=self._waiting_samples,
            waiting_chars=self._waiting_chars,
        )

    @asynccontextmanager
    async def permit(self, request: ScoreRequest | VoteRequest, arrived_s: float) -> AsyncGenerator[AdmissionPermit]:
        """Wait for a permit and hold it.

        arrived_s: on `time.monotonic`; the deadline counts from then.

        Raises Overloaded and DeadlineUnreachable at once, and DeadlineExceeded when the request times out in the queue.
        Nothing was generated then.
        """
        cost = cost_of(request, self._template_chars)
        permit = AdmissionPermit(self._engine, self._load, self._forecast, request, cost, arrived_s)
        try:
            if self._load.waiting or self._load.full:
                await self._wait(permit)
            else:
                permit.grant()
                self._record_wait(permit)
            yield permit
        except DeadlineExceeded:
            if permit.begun:
                permit.answered(in_time=False)
            raise
        finally:
            permit.release()

    async def _wait(self, permit: AdmissionPermit) -> None:
        request, cost, rank = permit.request, permit.cost, _RANKS[permit.request.priority]
        self._check_room(cost)
        permit.expected_wait_s = self._drain_s(self._queue.ahead(request.tenant, rank))
        if permit.expected_wait_s is not None and not request.wait_until_deadline:
            self._check_deadline(permit, permit.expected_wait_s)
        permit.granted = asyncio.get_running_loop().create_future()
        ticket = self._queue.push(permit, request.tenant, rank, self._forecast.samples(request))
        self._load.waiting += 1
        self._waiting_samples += cost.samples
        self._waiting_chars += cost.chars
        self._forecast.busy(permit.requested_s)
        try:
            # With too little time left for even one sample, room in the engine would be wasted on the request.
            async with asyncio.timeout(permit.left_s - self._forecast.least_s):
                await permit.granted
        except TimeoutError:
            self._record_wait(permit)
            raise DeadlineExceeded(
                f"timed out in the queue (deadline_s = {request.deadline_s:g}); no samples were generated. "
                "Retry later or raise deadline_s",
                details={"finished": 0, "begun": 0},
            ) from None
        finally:
            if ticket in self._queue:
                self._queue.remove(ticket)
                self._dequeued(permit)

    def _dequeued(self, permit: AdmissionPermit) -> None:
        self._load.waiting -= 1
        self._waiting_samples -= permit.cost.samples
        self._waiting_chars -= permit.cost.chars
        if not self._load.waiting:
            self._forecast.idle(time.monotonic())

    def _serve_queue(self) -> None:
        while self._load.waiting and not self._load.full:
            permit = self._queue.pop()
            self._dequeued(permit)
            permit.grant()
            self._record_wait(permit)
            assert permit.granted is not None
            # The waiting task may have just been cancelled; it releases the permit when it runs.
            if not permit.granted.done():
                permit.granted.set_result(None)

    def _record_wait(self, permit: AdmissionPermit) -> None:
        """The request was served or timed out."""
        waited_s = time.monotonic() - permit.requested_s
        self._metrics.wait_s.observe(waited_s)
        if permit.expected_wait_s is not None and not permit.request.wait_until_deadline:
            self._forecast.waited(permit.expected_wait_s, waited_s)

    def _check_room(self, cost: Cost) -> None:
        """Raises Overloaded. A request larger than the whole queue may wait if it is the only one."""
        if not self._load.waiting:
            return
        samples, chars = self._waiting_samples, self._waiting_chars
        for unit, waiting, more, limit in (
            ("samples", samples, cost.samples, self._max_samples),
            ("prompt_tokens", self._forecast.tokens(chars), self._forecast.tokens(cost.chars), self._max_tokens),
        ):
            if waiting + more > limit:
                self._metrics.refused.labels(unit).inc()
                # Assume that the queue drains evenly.
                share = min(1.0, (waiting + more - limit) / max(1, waiting))
                whole_s = self._drain_s(self._queue.cost)
                name = unit.replace("_", " ")
                raise Overloaded(
                    f"the queue is full: {waiting} {name} wait, this request adds {more}, and the limit is {limit}; "
                    "retry after Retry-After",
                    retry_after_s=UNKNOWN_S if whole_s is None else _whole_seconds(share * whole_s),
                    details={"waiting": waiting, "asked": more, "limit": limit},
                )

    def _check_deadline(self, permit: AdmissionPermit, expected_wait_s: float) -> None:
        wait_s, judging_s = self._forecast.latest_wait_s(expected_wait_s), self._forecast.judging_s(permit.request)
        late_s = wait_s + judging_s - permit.left_s
        if late_s > 0:
            self._metrics.refused.labels("deadline").inc()
            raise DeadlineUnreachable(
                f"the deadline cannot be met: up to {wait_s:.1f} s in the queue and {judging_s:.1f} s of judging, but "
                f"only {permit.left_s:.1f} s are left; retry after Retry-After or raise deadline_s",
                retry_after_s=_whole_seconds(late_s),
                param="deadline_s",
                details={"turn_s": round(wait_s), "judging_s": round(judging_s)},
            )

    def _drain_s(self, ahead: float) -> float | None:
        """Seconds until a request behind so many waiting samples is served; None while unknown."""
        coming = sum(
            max(0.0, self._forecast.samples(permit.request) - permit.begun - permit.promised)
            for permit in self._load.unanswered
        )
        excess = ahead + self._load.total + coming - self._load.capacity
        return self._forecast.drain_s(excess, time.monotonic())


def _whole_seconds(seconds: float) -> int:
    """Without jitter: clients add their own, and a request that comes early is refused again at no cost."""
    return max(1, min(LONGEST_S, math.ceil(seconds)))
