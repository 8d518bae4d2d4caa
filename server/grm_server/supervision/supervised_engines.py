"""A judge engine and a meta RM that survive the death of the engine behind them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from grm_server.engine.protocol import JudgeEngine, Outcome, Rating, RatingEngine, SchedulingClass, TokenizedScript
from grm_server.engine.stats import EngineStats
from grm_server.errors import EngineDead, MetaRMFailed
from grm_server.grm.script import Sampling, Script
from grm_server.supervision.supervisor import Supervisor
from grm_server.telemetry.metrics import Metrics

MAX_DEATHS = 4
"""A sample that was in flight in this many dying engines is not retried: it may be what kills them."""


class SupervisedJudgeEngine:
    """A JudgeEngine. The next engine retries the samples of a dead one, from their seeds."""

    def __init__(self, supervisor: Supervisor[JudgeEngine], metrics: Metrics) -> None:
        """supervisor: already begun."""
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
    def thought_mark(self) -> str | None:
        return self._supervisor.engine.thought_mark

    @property
    def running(self) -> int:
        return self._supervisor.engine.running + self._waiting

    @property
    def stats(self) -> EngineStats:
        return self._supervisor.engine.stats

    def raise_if_unavailable(self) -> None:
        """A request may wait for an engine that will be up soon."""
        if self._supervisor.hopeless:
            raise EngineDead(self._supervisor.down or "")

    def raise_if_not_ready(self) -> None:
        if self._supervisor.down is not None:
            raise EngineDead(self._supervisor.down)
        self._supervisor.engine.raise_if_unavailable()

    def prepare(self, script: Script) -> TokenizedScript:
        # Tokenising needs no live engine.
        return self._supervisor.engine.prepare(script)

    async def sample(
        self, prepared: TokenizedScript, seeds: Sequence[int], sampling: Sampling, scheduling: SchedulingClass
    ) -> AsyncGenerator[tuple[int, Outcome]]:
        missing = dict(enumerate(seeds))
        deaths = 0
        while missing:
            engine = await self._engine(len(missing))
            indices = list(missing)
            try:
                finished = engine.sample(prepared, list(missing.values()), sampling, scheduling)
                async with aclosing(finished):
                    async for index, outcome in finished:
                        del missing[indices[index]]
                        yield indices[index], outcome
            except EngineDead as error:
                self._supervisor.lost(engine, error.message)
                deaths += 1
                if deaths == MAX_DEATHS:
                    raise EngineDead(
                        f"{deaths} engines died while generating the same samples: {error.message}"
                    ) from error
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
    """A MetaRM. While its engine is down, ratings fail; `meta_rm.failure` decides what a request does then."""

    def __init__(self, supervisor: Supervisor[RatingEngine]) -> None:
        """supervisor: already begun."""
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
