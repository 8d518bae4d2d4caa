"""Many requests at once, a bounded number of them under way. Both clients share it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from grm_client.errors import GRMClientError
from grm_client.types import Rewards

Request = Mapping[str, Any]
"""`query`, `responses` and what else `rewards` takes, by name."""

Scored = Rewards | GRMClientError
"""The answer to one request of many, or why there is none."""


async def with_tasks(
    score: Callable[[Request], Awaitable[Rewards]], requests: Sequence[Request], concurrency: int, progress: bool
) -> list[Scored]:
    """What `score` makes of each request, in their order."""
    scored: dict[int, Scored] = {}
    waiting = iter(enumerate(requests))
    count = _workers(concurrency, len(requests))
    with _bar(len(requests), progress) as step:

        async def work() -> None:
            for place, request in waiting:
                try:
                    scored[place] = await score(request)
                except GRMClientError as error:
                    scored[place] = error
                step()

        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(count):
                    workers.create_task(work())
        except ExceptionGroup as mistakes:
            # Such as a request that lacks a field; the others ended with it.
            raise mistakes.exceptions[0] from None
    return [scored[place] for place in range(len(requests))]


def with_threads(
    score: Callable[[Request], Rewards], requests: Sequence[Request], concurrency: int, progress: bool
) -> list[Scored]:
    """See `with_tasks`."""
    pool = ThreadPoolExecutor(max(_workers(concurrency, len(requests)), 1))
    with _bar(len(requests), progress) as step:

        def work(request: Request) -> Scored:
            try:
                return score(request)
            except GRMClientError as error:
                return error
            finally:
                step()

        try:
            return list(pool.map(work, requests))
        finally:
            # After an interrupt, what has not begun does not begin.
            pool.shutdown(cancel_futures=True)


def _workers(concurrency: int, requests: int) -> int:
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, got {concurrency}")
    return min(concurrency, requests)


@contextmanager
def _bar(total: int, shown: bool) -> Iterator[Callable[[], None]]:
    """A bar on standard error, and what moves it on by one. Raises ModuleNotFoundError where rich is missing."""
    if not shown:
        yield lambda: None
        return
    # Imported here: a trainer's workers draw no bar and should neither need rich nor wait for it.
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "progress=True draws a bar with rich, which is not installed: pip install 'grm-client[progress]'"
        ) from error
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("scoring", total=total)
        yield lambda: bar.advance(task)
