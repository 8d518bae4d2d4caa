"""A judge and a meta RM that outlive their engines, as requests see them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from grm_server.engine.protocol import JudgeEngine, Outcome, Rating, RatingEngine, SchedulingClass, TokenizedScript
from grm_server.engine.stats import EngineStats
from grm_server.errors import EngineDead, MetaRMFailed
from grm_server.grm.types import Script
from grm_server.supervision.supervisor import Supervisor
from grm_server.telemetry.metrics import Metrics

MAX_DEATHS = 4
"""A sample that so many engines died of, or beside, is not written again: one that kills them must end somewhere."""


class SupervisedJudgeEngine:
    """A Sampler. A sample whose engine dies is written anew by the next one, from its seed."""

    def __init__(self, supervisor: Supervisor[JudgeEngine], metrics: Metrics) -> None:
        """`supervisor` has begun."""
        self._supervisor = supervisor
        self._metrics = metrics.engines
        self._waiting = 0

    @property
    def model(self) -> str:
        return self._supervisor.engine.model

    @property
    def max_model_len(self) -> int:
        return self._supervisor.engine.max_model_len

    @property
    def running(self) -> int:
        return self._supervisor.engine.running + self._waiting

    @property
    def pulse(self) -> EngineStats:
        return self._supervisor.engine.pulse

    def raise_if_unavailable(self) -> None:
        """A request may wait for an engine that comes soon."""
        if self._supervisor.hopeless:
            raise EngineDead(self._supervisor.down or "")

    def raise_if_not_ready(self) -> None:
        if self._supervisor.down is not None:
            raise EngineDead(self._supervisor.down)
        self._supervisor.engine.raise_if_unavailable()

    def prepare(self, script: Script) -> TokenizedScript:
        # Tokenising is done in this process, also while there is no engine.
        return self._supervisor.engine.prepare(script)

    async def sample(
        self, prepared: TokenizedScript, seeds: Sequence[int], temperature: float, scheduling: SchedulingClass
    ) -> AsyncGenerator[tuple[int, Outcome]]:
        missing = dict(enumerate(seeds))
        deaths = 0
        while missing:
            engine = await self._engine(len(missing))
            places = list(missing)
            try:
                finished = engine.sample(prepared, list(missing.values()), temperature, scheduling)
                async with aclosing(finished):
                    async for place, outcome in finished:
                        del missing[places[place]]
                        yield places[place], outcome
            except EngineDead as error:
                self._supervisor.lost(engine, error.message)
                deaths += 1
                if deaths == MAX_DEATHS:
                    raise EngineDead(f"{deaths} engines died while this was written: {error.message}") from error
                self._metrics.replayed.inc(len(missing))

    async def _engine(self, samples: int) -> JudgeEngine:
        self._waiting += samples
        try:
            engine = await self._supervisor.up()
        finally:
            self._waiting -= samples
        if engine is None:
            raise EngineDead(self._supervisor.down or "")
        return engine

    async def close(self) -> None:
        await self._supervisor.close()


class SupervisedMetaRM:
    """A MetaRM. While its engine is down ratings fail, and `meta_rm.failure` says what that means for a request."""

    def __init__(self, supervisor: Supervisor[RatingEngine]) -> None:
        """`supervisor` has begun."""
        self._supervisor = supervisor

    @property
    def model(self) -> str:
        return self._supervisor.engine.model

    def raise_if_unavailable(self) -> None:
        if self._supervisor.down is not None:
            raise MetaRMFailed(self._supervisor.down)
        self._supervisor.engine.raise_if_unavailable()

    def prepare(self, prompt: str) -> tuple[int, ...]:
        return self._supervisor.engine.prepare(prompt)

    async def rate(self, prompt: tuple[int, ...], answer: str) -> Rating:
        self.raise_if_unavailable()
        return await self._supervisor.engine.rate(prompt, answer)

    async def close(self) -> None:
        await self._supervisor.close()
