"""The samples of one request that are being written and rated: started in any number of calls, taken as they finish."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

from grm_server.engine.protocol import Outcome, SchedulingClass, TokenizedScript
from grm_server.grm.types import Draw, Failure, Trajectory

Write = Callable[[TokenizedScript, Sequence[int], float, SchedulingClass], AsyncGenerator[tuple[int, Outcome]]]
Read = Callable[[Draw, Outcome], Trajectory | Failure]
Rate = Callable[[Trajectory], Coroutine[Any, Any, Trajectory]]


class InFlightSamples:
    """Use it in an `async with` block: what is still being written at its end is aborted, and the abort awaited."""

    def __init__(
        self, write: Write, temperature: float, deadline_s: float, read: Read, rate: Rate | None = None
    ) -> None:
        """`write`: as `JudgeEngine.sample`.
        `deadline_s`: seconds from now until `next` raises TimeoutError, once.
        `read`: what a sample says. `rate`: what a meta RM says of that; each is asked at once, beside the others.
        """
        self._write = write
        self._temperature = temperature
        self._read = read
        self._rate = rate
        self._landed: asyncio.Queue[tuple[Draw, Trajectory | Failure] | Exception] = asyncio.Queue()
        self._calls: set[asyncio.Task[None]] = set()
        # One timer for all samples: a timeout around each wait would cost more than the wait.
        self._timer = asyncio.get_running_loop().call_later(deadline_s, self._landed.put_nowait, TimeoutError())

    def start(self, draws: Sequence[Draw], prepared: TokenizedScript, scheduling: SchedulingClass) -> None:
        """Begin these samples of one order, in one engine call."""
        self._calls.add(asyncio.ensure_future(self._call(prepared, draws, scheduling)))

    async def next(self) -> tuple[Draw, Trajectory | Failure]:
        """The sample that is there next. Raises TimeoutError at the deadline, or what engine or meta RM failed with."""
        landed = await self._landed.get()
        if isinstance(landed, Exception):
            raise landed
        return landed

    async def _call(self, prepared: TokenizedScript, draws: Sequence[Draw], scheduling: SchedulingClass) -> None:
        seeds = [draw.seed for draw in draws]
        try:
            async with aclosing(self._write(prepared, seeds, self._temperature, scheduling)) as finished:
                async for place, outcome in finished:
                    read = self._read(draws[place], outcome)
                    if self._rate is None or isinstance(read, Failure):
                        self._landed.put_nowait((draws[place], read))
                    else:
                        self._calls.add(asyncio.ensure_future(self._land(self._rate(read))))
        except Exception as error:  # Handed to whoever waits for the samples of this call.
            self._landed.put_nowait(error)

    async def _land(self, rating: Coroutine[Any, Any, Trajectory]) -> None:
        try:
            rated = await rating
            self._landed.put_nowait((rated.draw, rated))
        except Exception as error:  # Likewise.
            self._landed.put_nowait(error)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._timer.cancel()
        # The calls first: one that still runs may have a sample just finished, and start to rate it.
        while running := [call for call in self._calls if not call.done()]:
            for call in running:
                call.cancel()
            await asyncio.wait(running)
