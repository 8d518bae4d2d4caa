"""Single-flight: one result, one error, and cancellation when the last caller leaves."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from grm_server.caching.single_flight import SingleFlight


class Work:
    """Runs until `go` is set, and counts."""

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
            # Aborting takes a moment.
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


async def waiting(calls: SingleFlight[str, int], work: Work, *keys: str, **options: Any) -> list[asyncio.Task[Any]]:
    """One waiting caller for each key."""
    callers = [asyncio.ensure_future(calls.do(key, work, **options)) for key in keys]
    await asyncio.sleep(0.01)
    return callers


async def test_callers_with_one_key_share_the_call() -> None:
    calls, work = SingleFlight[str, int](), Work()
    callers = await waiting(calls, work, "a", "a", "b", "a")
    assert (work.begun, len(calls), calls.callers) == (2, 2, 4)
    work.go.set()
    assert [await caller for caller in callers] == [(1, False), (1, True), (2, False), (1, True)]
    assert len(calls) == 0
    # Nothing is cached.
    assert await calls.do("a", work) == (3, False)


async def test_an_error_is_shared_too() -> None:
    calls, work = SingleFlight[str, int](), Work(ValueError("no"))
    callers = await waiting(calls, work, "a", "a", "a")
    work.go.set()
    for caller in callers:
        with pytest.raises(ValueError, match="no"):
            await caller
    assert (work.begun, len(calls)) == (1, 0)


async def test_cancelling_a_caller_does_not_affect_the_others() -> None:
    calls, work = SingleFlight[str, int](), Work()
    first, second, third = await waiting(calls, work, "a", "a", "a")
    first.cancel()
    third.cancel()
    await asyncio.wait((first, third))
    assert first.cancelled()
    assert third.cancelled()
    assert (work.cancelled, len(calls)) == (0, 1)
    work.go.set()
    assert await second == (1, True)


async def test_cancelling_the_last_caller_cancels_the_work_and_waits_for_its_end() -> None:
    calls, work = SingleFlight[str, int](), Work()
    callers = await waiting(calls, work, "a", "a")
    for caller in callers:
        caller.cancel()
    await asyncio.wait(callers)
    assert (work.cancelled, len(calls)) == (1, 0)


async def test_a_call_that_is_being_cancelled_is_not_joined() -> None:
    calls, work = SingleFlight[str, int](), Work()
    (caller,) = await waiting(calls, work, "a")
    caller.cancel()
    await asyncio.sleep(0)
    (late,) = await waiting(calls, work, "a")
    work.go.set()
    assert await late == (2, False)
    await asyncio.wait((caller,))
    assert work.cancelled == 1


async def test_an_error_without_callers_left_is_not_logged_by_asyncio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls, work, complaints = SingleFlight[str, int](), Work(ValueError("no")), list[Any]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    (caller,) = await waiting(calls, work, "a")
    work.go.set()
    await until(lambda: work.begun == 1)
    # The work fails in the same iteration of the loop in which the caller leaves.
    await asyncio.sleep(0)
    caller.cancel()
    await asyncio.wait((caller,))
    del caller
    gc.collect()
    assert (complaints, len(calls)) == ([], 0)


async def test_a_call_that_is_too_old_is_not_joined() -> None:
    calls, work = SingleFlight[str, int](), Work()
    (first,) = await waiting(calls, work, "a")
    (second,) = await waiting(calls, work, "a", max_age_s=0.0)
    (third,) = await waiting(calls, work, "a")
    work.go.set()
    assert [await caller for caller in (first, second, third)] == [(1, False), (2, False), (2, True)]
    assert len(calls) == 0
