"""Work that several wait for: one result, one error, and an end when the last one leaves."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from grm_server.caching.single_flight import SingleFlight


class Work:
    """Ends when it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.begun = self.cancelled = 0
        self.go = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        number = self.begun
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            # The engine needs a moment to be told.
            await asyncio.sleep(0.01)
            self.cancelled += 1
            raise
        if self.error:
            raise self.error
        return number


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not met():
            await asyncio.sleep(0.001)


async def asking(flights: SingleFlight[str, int], work: Work, *keys: str, **options: Any) -> list[asyncio.Task[Any]]:
    """A caller for each key, all of them waiting."""
    callers = [asyncio.ensure_future(flights.result(key, work, **options)) for key in keys]
    await asyncio.sleep(0.01)
    return callers


async def test_those_who_ask_for_the_same_share_it() -> None:
    flights, work = SingleFlight[str, int](), Work()
    callers = await asking(flights, work, "a", "a", "b", "a")
    assert (work.begun, len(flights)) == (2, 2)
    work.go.set()
    assert [await caller for caller in callers] == [(1, False), (1, True), (2, False), (1, True)]
    assert len(flights) == 0
    # It is not remembered.
    assert await flights.result("a", work) == (3, False)


async def test_an_error_is_shared_too() -> None:
    flights, work = SingleFlight[str, int](), Work(ValueError("no"))
    callers = await asking(flights, work, "a", "a", "a")
    work.go.set()
    for caller in callers:
        with pytest.raises(ValueError, match="no"):
            await caller
    assert (work.begun, len(flights)) == (1, 0)


async def test_one_who_leaves_takes_nothing_from_the_others() -> None:
    flights, work = SingleFlight[str, int](), Work()
    first, second, third = await asking(flights, work, "a", "a", "a")
    first.cancel()
    third.cancel()
    await asyncio.wait((first, third))
    assert first.cancelled()
    assert third.cancelled()
    assert (work.cancelled, len(flights)) == (0, 1)
    work.go.set()
    assert await second == (1, True)


async def test_the_last_one_to_leave_ends_it_and_waits_for_its_end() -> None:
    flights, work = SingleFlight[str, int](), Work()
    callers = await asking(flights, work, "a", "a")
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert (work.cancelled, len(flights)) == (1, 0)


async def test_who_comes_while_it_is_being_ended_does_not_join_it() -> None:
    flights, work = SingleFlight[str, int](), Work()
    (caller,) = await asking(flights, work, "a")
    caller.cancel()
    await asyncio.sleep(0)
    (late,) = await asking(flights, work, "a")
    work.go.set()
    assert await late == (2, False)
    assert work.cancelled == 1


async def test_an_error_that_nobody_is_left_to_hear_is_not_lost_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flights, work, complaints = SingleFlight[str, int](), Work(ValueError("no")), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    (caller,) = await asking(flights, work, "a")
    work.go.set()
    await until(lambda: work.begun == 1)
    # Its work ends in the same turn of the loop in which it leaves.
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait((caller,))
    del caller
    gc.collect()
    assert (complaints, len(flights)) == ([], 0)


async def test_what_is_too_old_is_not_joined() -> None:
    flights, work = SingleFlight[str, int](), Work()
    (first,) = await asking(flights, work, "a")
    (second,) = await asking(flights, work, "a", young_s=0.0)
    (third,) = await asking(flights, work, "a")
    work.go.set()
    assert [await caller for caller in (first, second, third)] == [(1, False), (2, False), (2, True)]
    assert len(flights) == 0
