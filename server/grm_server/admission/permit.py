"""One request's permit: what it has in the engine is counted as it goes through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import TYPE_CHECKING

from grm_server.admission.cost import Cost
from grm_server.engine.protocol import JudgeEngine, Outcome, SchedulingClass, TokenizedScript
from grm_server.grm.types import Script
from grm_server.pipeline.types import ScoreRequest

if TYPE_CHECKING:
    from grm_server.admission.controller import Admission

ANSWER_S, ANSWER_SHARE = 0.1, 0.02
"""Of a deadline kept for adding up and sending: so many seconds, or a share of it where that is less."""


class AdmissionPermit:
    """A permit that was given, or is waited for. See `pipeline.permit`."""

    def __init__(
        self, admission: Admission, engine: JudgeEngine, request: ScoreRequest, cost: Cost, arrived_s: float
    ) -> None:
        self.arrived_s = arrived_s
        self.asked_s = time.monotonic()
        self.request = request
        self.cost = cost
        self.begun = self.promised = 0
        """Samples that were begun; those of the first wave that were not, though their turn has come."""
        self.given_s: float | None = None
        self.thought_s: float | None = None
        """Seconds of waiting that were likeliest; None where nobody knew."""
        self.turn: asyncio.Future[None] | None = None
        """Where it has to wait."""
        self._admission = admission
        self._engine = engine

    @property
    def left_s(self) -> float:
        """Seconds until its samples must be in, so that its answer is there by the deadline."""
        deadline_s = self.request.deadline_s
        return self.arrived_s + deadline_s - min(ANSWER_S, ANSWER_SHARE * deadline_s) - time.monotonic()

    @property
    def running(self) -> int:
        return self._engine.running

    @property
    def contended(self) -> bool:
        return self._admission.waiting > 0

    def prepare(self, script: Script) -> TokenizedScript:
        return self._engine.prepare(script)

    async def sample(
        self, prepared: TokenizedScript, seeds: Sequence[int], temperature: float, scheduling: SchedulingClass
    ) -> AsyncGenerator[tuple[int, Outcome]]:
        counted, left = scheduling is not SchedulingClass.AUDIT, len(seeds)
        if counted:
            self._admission.begin(self, left)
        try:
            async with aclosing(self._engine.sample(prepared, seeds, temperature, scheduling)) as written:
                async for place, outcome in written:
                    left -= 1
                    if counted:
                        self._admission.finish(self, outcome)
                    yield place, outcome
        finally:
            # Of those that were aborted the engine has been told by now.
            if counted:
                self._admission.forget(left)

    @contextmanager
    def rating(self) -> Iterator[None]:
        self._admission.load(1)
        try:
            yield
        finally:
            self._admission.load(-1)

    def answered(self, *, in_time: bool) -> None:
        """Its request has its answer. in_time: not one that a deadline cut."""
        self._admission.learn(self, in_time=in_time)
