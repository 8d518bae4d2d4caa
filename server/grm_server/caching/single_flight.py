"""Work that several wait for: done once, and given up when nobody waits any more."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(eq=False, slots=True)
class _Flight(Generic[V]):
    work: asyncio.Task[V]
    began_s: float
    callers: int = 0
    """Those that are still there."""


class SingleFlight(Generic[K, V]):
    """What is under way, by key. Empty when nobody waits."""

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[V]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    async def result(
        self, key: K, work: Callable[[], Coroutine[Any, Any, V]], *, young_s: float = math.inf
    ) -> tuple[V, bool]:
        """What `work` gives, and whether it was under way already for another caller.

        young_s: work that is older is not joined but begun anew.

        All callers get the same result or the same error. One who is cancelled leaves the others theirs; when the last
        one is, the work is cancelled, and its end awaited.
        """
        now_s = asyncio.get_running_loop().time()
        flight = self._flights.get(key)
        joined = flight is not None and now_s - flight.began_s <= young_s
        if flight is None or not joined:
            flight = self._flights[key] = _Flight(asyncio.ensure_future(work()), now_s)
        flight.callers += 1
        try:
            # Unlike awaiting the task, this leaves it alone when the caller is cancelled.
            await asyncio.wait((flight.work,))
            return flight.work.result(), joined
        finally:
            flight.callers -= 1
            if not flight.callers:
                await self._end(key, flight)

    async def _end(self, key: K, flight: _Flight[V]) -> None:
        # First of all: who comes while it is being cancelled must not join it.
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.work.done():
            flight.work.cancel()
            await asyncio.wait((flight.work,))
        if not flight.work.cancelled():
            # It may have failed just as the last one left; asyncio logs an error that nobody asked for.
            flight.work.exception()
