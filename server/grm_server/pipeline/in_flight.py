"""The samples of one request that are being generated and rated: started in any number of engine calls, collected in
the order in which they finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from grm_server.engine.protocol import Outcome, SchedulingClass, TokenizedScript
from grm_server.grm.script import Sampling
from grm_server.grm.types import Draw, Failure, Trajectory

Generate = Callable[[TokenizedScript, Sequence[int], Sampling, SchedulingClass], AsyncGenerator[tuple[int, Outcome]]]
Parse = Callable[[Draw, Outcome], Trajectory | Failure]
Rate = Callable[[Trajectory], Coroutine[Any, Any, Trajectory]]


class InFlightSamples:
    """Use it in an `async with` block: on exit, unfinished samples are aborted and the aborts awaited."""

    def __init__(
        self, generate: Generate, sampling: Sampling, deadline_s: float, parse: Parse, rate: Rate | None = None
    ) -> None:
        """`generate`: as `JudgeEngine.sample`.
        `deadline_s`: seconds from now until `next` raises TimeoutError, once.
        `parse`: turns a finished sample into scores. `rate`: adds the meta RM's rating; ratings run concurrently.
        """
        self._generate = generate
        self._sampling = sampling
        self._parse = parse
        self._rate = rate
        self._results: asyncio.Queue[tuple[Draw, Trajectory | Failure] | Exception] = asyncio.Queue()
        self._calls: set[asyncio.Task[None]] = set()
        # One timer for all samples: a timeout around each wait would cost more than the wait itself.
        self._timer = asyncio.get_running_loop().call_later(deadline_s, self._results.put_nowait, TimeoutError())

    def start(self, draws: Sequence[Draw], prepared: TokenizedScript, scheduling: SchedulingClass) -> None:
        """Start these samples, all of one order, in one engine call."""
        self._calls.add(asyncio.ensure_future(self._call(prepared, draws, scheduling)))

    async def next(self) -> tuple[Draw, Trajectory | Failure]:
        """Wait for the next finished sample. Raises TimeoutError at the deadline, and errors of engine or meta RM."""
        result = await self._results.get()
        if isinstance(result, Exception):
            raise result
        return result

    async def _call(self, prepared: TokenizedScript, draws: Sequence[Draw], scheduling: SchedulingClass) -> None:
        seeds = [draw.seed for draw in draws]
        try:
            async with aclosing(self._generate(prepared, seeds, self._sampling, scheduling)) as finished:
                async for index, outcome in finished:
                    parsed = self._parse(draws[index], outcome)
                    if self._rate is None or isinstance(parsed, Failure):
                        self._results.put_nowait((draws[index], parsed))
                    else:
                        self._calls.add(asyncio.ensure_future(self._finish_rating(self._rate(parsed))))
        except Exception as error:  # `next` raises it.
            self._results.put_nowait(error)

    async def _finish_rating(self, rating: Coroutine[Any, Any, Trajectory]) -> None:
        try:
            rated = await rating
            self._results.put_nowait((rated.draw, rated))
        except Exception as error:  # `next` raises it.
            self._results.put_nowait(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # Loop, because a call that still runs may just have finished a sample and started a rating.
        while running := [call for call in self._calls if not call.done()]:
            for call in running:
                call.cancel()
            await asyncio.wait(running)
