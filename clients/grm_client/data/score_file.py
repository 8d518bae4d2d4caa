"""Score a file of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO

from grm_client.client import AsyncGRMClient
from grm_client.data.jsonl import Row, answer_row
from grm_client.data.work_file import LineResult, Progress, work_file
from grm_client.transport import as_rewards


async def score_file(
    client: AsyncGRMClient,
    source: Iterable[bytes],
    out: BinaryIO,
    *,
    concurrency: int,
    defaults: Mapping[str, object],
    skip: int,
    on_progress: Callable[[Progress], None],
) -> Progress:
    """Score every line of `source` after the first `skip` and write a row for each to `out`. See `work_file`."""

    async def score(number: int, row: Row) -> LineResult:
        answer = await client.post(row.body)
        usage = as_rewards(answer).usage
        return LineResult(answer_row(number, row.id, answer), usage.samples, usage.completion_tokens)

    return await work_file(
        score, source, out, concurrency=concurrency, defaults=defaults, skip=skip, on_progress=on_progress
    )
