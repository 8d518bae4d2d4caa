"""Requests sent on time, and how late their answers are.

Closed loop: so many requests are in flight, the next is sent when one is answered; for the most that a server can do.
Open loop: requests come when they come, whether earlier ones are answered or not; for how long they wait. A latency
is counted from the time at which a request should have been sent, so that a client or a server that holds up the
sending does not hide what it does ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")
Job = Callable[[], Awaitable[T]]


@dataclass(frozen=True, slots=True)
class TimedResult(Generic[T]):
    """One request. Seconds from the start of its run."""

    intended_s: float
    sent_s: float
    done_s: float
    result: T

    @property
    def latency_s(self) -> float:
        return self.done_s - self.intended_s


async def closed_loop(jobs: Iterable[Job[T]], in_flight: int) -> list[TimedResult[T]]:
    """All jobs, `in_flight` of them at once, in the order in which they end. What a job raises ends the run."""
    waiting, began_s = iter(jobs), time.perf_counter()
    done: list[TimedResult[T]] = []

    async def lane() -> None:
        for job in waiting:
            sent_s = time.perf_counter() - began_s
            result = await job()
            done.append(TimedResult(sent_s, sent_s, time.perf_counter() - began_s, result))

    async with asyncio.TaskGroup() as lanes:
        for _ in range(in_flight):
            lanes.create_task(lane())
    return done


async def open_loop(jobs: Sequence[Job[T]], at_s: Sequence[float]) -> list[TimedResult[T]]:
    """Job i at `at_s[i]` seconds (ascending); all of them, in the order in which they end."""
    began_s = time.perf_counter()
    done: list[TimedResult[T]] = []

    async def one(job: Job[T], intended_s: float) -> None:
        sent_s = time.perf_counter() - began_s
        result = await job()
        done.append(TimedResult(intended_s, sent_s, time.perf_counter() - began_s, result))

    async with asyncio.TaskGroup() as sent:
        for job, intended_s in zip(jobs, at_s, strict=True):
            await asyncio.sleep(max(0.0, began_s + intended_s - time.perf_counter()))
            sent.create_task(one(job, intended_s))
    return done


def poisson(rate: float, seed: int, *, count: int | None = None, seconds: float = float("inf")) -> list[float]:
    """Arrival times of `rate` requests a second: the first `count`, or those of the first `seconds`."""
    rng, at_s = random.Random(seed), 0.0
    times: list[float] = []
    while count is None or len(times) < count:
        at_s += rng.expovariate(rate)
        if at_s > seconds:
            break
        times.append(at_s)
    return times


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99: the least value that so many are not above. Of 20 values p95 is the second largest and p99 the
    largest. Empty for none."""
    if not values:
        return {}
    ranks = np.percentile(values, (50, 95, 99), method="inverted_cdf")
    return {name: float(value) for name, value in zip(("p50", "p95", "p99"), ranks, strict=True)}


def rate_between(done_s: Iterable[tuple[float, float]], start_s: float, end_s: float) -> float:
    """Weight a second of what was done from `start_s` to `end_s`; `done_s`: (when, weight)."""
    return sum(weight for at_s, weight in done_s if start_s < at_s <= end_s) / (end_s - start_s)
