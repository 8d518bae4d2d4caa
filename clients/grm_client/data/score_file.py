"""Score a file of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import BinaryIO

from grm_client.async_client import AsyncGRMClient
from grm_client.data.jsonl import Row, answer_fields
from grm_client.data.progress import Progress
from grm_client.data.resume import Earlier
from grm_client.data.work_file import LineResult, work_file
from grm_client.transport import as_rewards


async def score_file(
    client: AsyncGRMClient,
    source: Iterable[bytes],
    out: BinaryIO,
    *,
    concurrency: int,
    options: Mapping[str, object],
    earlier: Earlier | None = None,
    on_progress: Callable[[Progress], None],
) -> Progress:
    """Score every line of `source` that `earlier` does not answer, and write its row to `out`. See `work_file`."""

    async def score(row: Row) -> LineResult:
        answer = await client.post(row.body)
        rewards = as_rewards(answer)
        usage = rewards.usage
        return LineResult(answer_fields(answer), rewards.model, usage.samples, usage.completion_tokens)

    return await work_file(
        client,
        score,
        source,
        out,
        concurrency=concurrency,
        options=options,
        earlier=earlier,
        on_progress=on_progress,
    )
