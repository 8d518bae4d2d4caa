"""Who may have samples written, and when. See docs/design/admission.md.

request -> room in the engine, and nobody waits? a permit
        -> too much waits, or its deadline is too near? refused at once
        -> waits: fair between tenants, by priority within one

Samples are counted, not requests. What a request has in the engine is known from its permit, through which alone it can
get there.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from grm_server.admission.cost import Cost, cost_of
from grm_server.admission.fair_queue import FairQueue
from grm_server.admission.forecast import Forecast
from grm_server.admission.permit import AdmissionPermit
from grm_server.engine.protocol import JudgeEngine, Outcome
from grm_server.errors import DeadlineExceeded, DeadlineUnreachable, Overloaded
from grm_server.grm.types import Sample
from grm_server.pipeline.types import Priority, ScoreRequest
from grm_server.telemetry.metrics import Metrics

UNKNOWN_S = 5
"""`Retry-After` before the engine's rate is known."""
LONGEST_S = 600
"""`Retry-After` at most: nobody knows what will be after that."""
_RANKS: dict[Priority, int] = {"high": 0, "normal": 1, "low": 2}


class Admission:
    """One engine's. All state is of requests that are there, but for what is usual."""

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
        """capacity: samples in the engine from which on requests wait. template_letters: see `cost_of`."""
        self._engine = engine
        self._metrics = metrics.admission
        self._capacity = capacity
        self._max_samples = max_waiting_samples
        self._max_tokens = max_waiting_prompt_tokens
        self._template_chars = template_chars
        self._line: FairQueue[AdmissionPermit] = FairQueue()
        self._waiting_samples = self._waiting_chars = 0
        self._given: set[AdmissionPermit] = set()
        """Permits of requests that are not answered."""
        self._running = 0
        """Samples in the engine."""
        self._load = 0
        """These, those that are promised to it, and those that the meta RM rates."""
        self._forecast = Forecast(capacity)
        self._metrics.waiting_requests.set_function(lambda: len(self._line))
        self._metrics.waiting_samples.set_function(lambda: self._waiting_samples)
        self._metrics.waiting_prompt_tokens.set_function(lambda: self._forecast.tokens(self._waiting_chars))
        self._metrics.running_samples.set_function(lambda: self._running)
        self._metrics.drain_rate.set_function(lambda: self._forecast.per_s(time.monotonic()) or 0.0)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._line)

    @asynccontextmanager
    async def permit(self, request: ScoreRequest, arrived_s: float) -> AsyncGenerator[AdmissionPermit]:
        """A permit, when it is this request's turn.

        arrived_s: on `time.monotonic`; its deadline counts from then.

        Raises Overloaded and DeadlineUnreachable at once, and DeadlineExceeded where the turn does not come in time;
        nothing was generated then.
        """
        held = AdmissionPermit(self, self._engine, request, cost_of(request, self._template_chars), arrived_s)
        try:
            if self._line or self._load >= self._capacity:
                await self._wait(held)
            else:
                self._give(held)
            yield held
        except DeadlineExceeded:
            if held.begun:
                self.learn(held, in_time=False)
            raise
        finally:
            if held.given_s is not None:
                self._take_back(held)

    async def _wait(self, held: AdmissionPermit) -> None:
        request, cost = held.request, held.cost
        self._check_room(cost)
        held.thought_s = self._drain_s(self._line.ahead(request.tenant, _RANKS[request.priority]))
        if held.thought_s is not None and not request.wait_until_deadline:
            self._check_deadline(held, held.thought_s)
        held.turn = asyncio.get_running_loop().create_future()
        samples = self._forecast.samples(request, cost)
        place = self._line.push(held, request.tenant, _RANKS[request.priority], samples)
        self._waiting_samples += cost.samples
        self._waiting_chars += cost.chars
        self._forecast.busy(held.asked_s)
        try:
            # When there is no time left even for one sample, its turn would be wasted on it.
            async with asyncio.timeout(held.left_s - self._forecast.least_s):
                await held.turn
        except TimeoutError:
            self._waited(held, time.monotonic())
            raise DeadlineExceeded(
                f"its turn had not come when its deadline of {request.deadline_s:g} s was near, and nothing was "
                "generated; try again later, or allow more time",
                details={"finished": 0, "begun": 0},
            ) from None
        finally:
            if place in self._line:
                self._line.remove(place)
                self._left(held)

    def _left(self, held: AdmissionPermit) -> None:
        """It is in the line no longer."""
        self._waiting_samples -= held.cost.samples
        self._waiting_chars -= held.cost.chars
        if not self._line:
            self._forecast.idle(time.monotonic())

    def _give(self, held: AdmissionPermit) -> None:
        held.given_s = time.monotonic()
        held.promised = held.cost.first
        self._load += held.promised
        self._given.add(held)
        self._waited(held, held.given_s)

    def _waited(self, held: AdmissionPermit, now_s: float) -> None:
        self._metrics.wait_s.observe(now_s - held.asked_s)
        if held.thought_s is not None and not held.request.wait_until_deadline:
            self._forecast.turned(held.thought_s, now_s - held.asked_s)

    def _take_back(self, held: AdmissionPermit) -> None:
        self._given.discard(held)
        held.promised, unused = 0, held.promised
        self.load(-unused)

    def load(self, change: int) -> None:
        """There is more to do, or less, and room for who is next."""
        self._load += change
        while self._line and self._load < self._capacity:
            held = self._line.pop()
            self._left(held)
            self._give(held)
            assert held.turn is not None
            # Its caller may have been cancelled a moment ago; it gives the permit back when it runs.
            if not held.turn.done():
                held.turn.set_result(None)

    def begin(self, held: AdmissionPermit, count: int) -> None:
        """Samples go to the engine."""
        kept = min(count, held.promised)
        held.promised -= kept
        self.load(count - kept)
        held.begun += count
        self._running += count

    def finish(self, held: AdmissionPermit, outcome: Outcome) -> None:
        """The engine has written one."""
        if isinstance(outcome, Sample):
            # By the engine's clock: a sample that waited for a restart says nothing of how long samples take.
            self._forecast.written(held.cost, outcome.prompt_tokens, outcome.finished_s - outcome.started_s)
        self._forecast.finished(time.monotonic())
        self.forget(1)

    def forget(self, count: int) -> None:
        """The engine has so many less."""
        self._running -= count
        self.load(-count)

    def learn(self, held: AdmissionPermit, *, in_time: bool) -> None:
        """What a request took, which begins no more samples but for an audit."""
        assert held.given_s is not None
        self._given.discard(held)
        seconds = time.monotonic() - held.given_s
        if in_time:
            self._forecast.answered(held.request.stop, held.begun / held.cost.samples, seconds)
        else:
            self._forecast.cut(held.request.stop, seconds)

    def _check_room(self, cost: Cost) -> None:
        samples, chars = self._waiting_samples, self._waiting_chars
        for what, waiting, more, most in (
            ("samples", samples, cost.samples, self._max_samples),
            ("prompt_tokens", self._forecast.tokens(chars), self._forecast.tokens(cost.chars), self._max_tokens),
        ):
            if self._line and waiting + more > most:
                self._metrics.refused.labels(what).inc()
                # The line goes on evenly, as far as anyone can tell.
                share = min(1.0, (waiting + more - most) / max(1, waiting))
                whole_s = self._drain_s(self._line.cost)
                raise Overloaded(
                    f"{waiting} {what.replace('_', ' ')} wait for the engine already, and there is room for {most}; "
                    "try again after Retry-After",
                    retry_after_s=UNKNOWN_S if whole_s is None else _whole(share * whole_s),
                    details={"waiting": waiting, "asked": more, "limit": most},
                )

    def _check_deadline(self, held: AdmissionPermit, thought_s: float) -> None:
        turn_s, judging_s = self._forecast.turn_s(thought_s), self._forecast.judging_s(held.request)
        late_s = turn_s + judging_s - held.left_s
        if late_s > 0:
            self._metrics.refused.labels("deadline").inc()
            raise DeadlineUnreachable(
                f"its turn may come as late as in {turn_s:.1f} s and judging takes {judging_s:.1f} s, more than the "
                f"{held.left_s:.1f} s until its deadline; try again after Retry-After, or allow more time",
                retry_after_s=_whole(late_s),
                param="deadline_s",
                details={"turn_s": round(turn_s), "judging_s": round(judging_s)},
            )

    def _drain_s(self, ahead: float) -> float | None:
        """Seconds until a request has its turn, behind so many samples that wait; None where nobody knows."""
        coming = sum(
            max(0.0, self._forecast.samples(held.request, held.cost) - held.begun - held.promised)
            for held in self._given
        )
        return self._forecast.drain_s(ahead + self._load + coming - self._capacity, time.monotonic())


def _whole(seconds: float) -> int:
    """No jitter: clients have it, and whoever comes early is refused once more, which costs nothing."""
    return max(1, min(LONGEST_S, math.ceil(seconds)))
