"""Single-flight: concurrent callers with one key share one execution, which is cancelled when the last one leaves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(eq=False, slots=True)
class _Call(Generic[V]):
    """One execution."""

    task: asyncio.Task[V]
    began_s: float
    callers: int = 0
    """Callers that still wait."""


class SingleFlight(Generic[K, V]):
    """The calls in flight, by key. It caches nothing."""

    def __init__(self) -> None:
        self._calls: dict[K, _Call[V]] = {}

    def __len__(self) -> int:
        """Calls in flight."""
        return len(self._calls)

    @property
    def callers(self) -> int:
        """Callers that wait for them."""
        return sum(call.callers for call in self._calls.values())

    async def do(
        self, key: K, work: Callable[[], Coroutine[Any, Any, V]], *, max_age_s: float = math.inf
    ) -> tuple[V, bool]:
        """The result of `work`, and whether it was already in flight for another caller.

        max_age_s: an older call is not joined; a new one replaces it.

        All callers get the same result or the same error. Cancelling one caller does not affect the others. Cancelling
        the last one cancels the work and waits for its end.
        """
        now_s = asyncio.get_running_loop().time()
        call = self._calls.get(key)
        joined = call is not None and now_s - call.began_s <= max_age_s
        if call is None or not joined:
            call = self._calls[key] = _Call(asyncio.ensure_future(work()), now_s)
        call.callers += 1
        try:
            # Unlike awaiting the task, this does not cancel it when the caller is cancelled.
            await asyncio.wait((call.task,))
            return call.task.result(), joined
        finally:
            call.callers -= 1
            if not call.callers:
                await self._end(key, call)

    async def _end(self, key: K, call: _Call[V]) -> None:
        # First, so that a new caller cannot join it while it is being cancelled.
        if self._calls.get(key) is call:
            del self._calls[key]
        if not call.task.done():
            call.task.cancel()
            await asyncio.wait((call.task,))
        if not call.task.cancelled():
            # It may have failed just as the last caller left. Retrieve the error, or asyncio logs it.
            call.task.exception()
