"""Closed-loop and open-loop load generation, and latencies.

Closed loop: a fixed number of requests is in flight, and each answer triggers the next request. It measures the maximum
throughput of a server. Open loop: requests arrive at given times, whether or not earlier ones are answered. It measures
latency. A latency is counted from the time at which a request should have been sent, so a client or server that delays
the sending does not hide that delay ("coordinated omission").
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
    """One request. All times are seconds from the start of its run."""

    intended_s: float
    sent_s: float
    done_s: float
    result: T

    @property
    def latency_s(self) -> float:
        return self.done_s - self.intended_s


async def closed_loop(jobs: Iterable[Job[T]], in_flight: int) -> list[TimedResult[T]]:
    """Run all jobs, `in_flight` of them at once; results in completion order. An exception in a job ends the run."""
    waiting, began_s = iter(jobs), time.perf_counter()
    done: list[TimedResult[T]] = []

    async def worker() -> None:
        for job in waiting:
            sent_s = time.perf_counter() - began_s
            result = await job()
            done.append(TimedResult(sent_s, sent_s, time.perf_counter() - began_s, result))

    async with asyncio.TaskGroup() as workers:
        for _ in range(in_flight):
            workers.create_task(worker())
    return done


async def open_loop(jobs: Sequence[Job[T]], at_s: Sequence[float]) -> list[TimedResult[T]]:
    """Start job i at `at_s[i]` seconds (ascending); all results, in completion order."""
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
    """p50, p95 and p99, each an observed value: the smallest one with at least that share of the values at or below it.
    With 20 values p95 is the second largest and p99 the largest. Empty without values."""
    if not values:
        return {}
    ranks = np.percentile(values, (50, 95, 99), method="inverted_cdf")
    return {name: float(value) for name, value in zip(("p50", "p95", "p99"), ranks, strict=True)}


def rate_between(done_s: Iterable[tuple[float, float]], start_s: float, end_s: float) -> float:
    """Total weight per second of the events between `start_s` and `end_s`; `done_s`: (time, weight) of each event."""
    return sum(weight for at_s, weight in done_s if start_s < at_s <= end_s) / (end_s - start_s)
