"""Send many requests with bounded concurrency. Shared by both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from grm_client.errors import GRMClientError
from grm_client.types import Rewards

Request = Mapping[str, Any]
"""Arguments of `rewards`, by name: `query`, `responses` and any options."""

ScoreResult = Rewards | GRMClientError
"""The rewards of one request, or the error that it failed with."""


async def score_with_tasks(
    score: Callable[[Request], Awaitable[Rewards]], requests: Sequence[Request], concurrency: int, progress: bool
) -> list[ScoreResult]:
    """Call `score` for each request in asyncio tasks; return the results in request order."""
    results: dict[int, ScoreResult] = {}
    pending = iter(enumerate(requests))
    workers = _worker_count(concurrency, len(requests))
    with _progress_bar(len(requests), progress) as advance:

        async def work() -> None:
            for index, request in pending:
                try:
                    results[index] = await score(request)
                except GRMClientError as error:
                    results[index] = error
                advance()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(workers):
                    group.create_task(work())
        except ExceptionGroup as errors:
            # A programming error, such as a request without responses. It cancelled the other workers.
            raise errors.exceptions[0] from None
    return [results[index] for index in range(len(requests))]


def score_with_threads(
    score: Callable[[Request], Rewards], requests: Sequence[Request], concurrency: int, progress: bool
) -> list[ScoreResult]:
    """As `score_with_tasks`, in threads."""
    pool = ThreadPoolExecutor(max(_worker_count(concurrency, len(requests)), 1))
    with _progress_bar(len(requests), progress) as advance:

        def work(request: Request) -> ScoreResult:
            try:
                return score(request)
            except GRMClientError as error:
                return error
            finally:
                advance()

        try:
            return list(pool.map(work, requests))
        finally:
            # After an interrupt, do not start the queued requests.
            pool.shutdown(cancel_futures=True)


def _worker_count(concurrency: int, requests: int) -> int:
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, got {concurrency}")
    return min(concurrency, requests)


@contextmanager
def _progress_bar(total: int, show: bool) -> Iterator[Callable[[], None]]:
    """Draw a progress bar on standard error and yield the function that advances it by one.

    Raises ModuleNotFoundError if rich is not installed.
    """
    if not show:
        yield lambda: None
        return
    # Imported here: a trainer's workers draw no bar, so they should neither need rich nor spend time importing it.
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("progress=True needs rich, which is not installed: pip install rich") from error
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("scoring", total=total)
        yield lambda: bar.advance(task)
