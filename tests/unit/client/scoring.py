"""Runs of `score_file` against a handler in place of the server."""

from __future__ import annotations

import io
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, BinaryIO

import httpx

from grm_client import AsyncGRMClient
from grm_client.data.progress import Progress
from grm_client.data.score_file import score_file

Answer = Callable[..., dict[str, Any]]
"""The fixture `answer`: a server's answer with these fields."""
Handler = Callable[[dict[str, Any]], Awaitable[httpx.Response]]


def line(query: str, **fields: Any) -> bytes:
    return json.dumps({"query": query, "responses": ["a", "b", "c"]} | fields).encode() + b"\n"


def rows(out: io.BytesIO) -> list[dict[str, Any]]:
    assert out.getvalue() == b"" or out.getvalue().endswith(b"\n")
    return [json.loads(row) for row in out.getvalue().splitlines()]


async def score(
    handler: Handler, source: Iterable[bytes], out: BinaryIO, *, concurrency: int = 4, **options: Any
) -> list[Progress]:
    """All reported progress. The last one equals the result of `score_file`."""

    async def serve(request: httpx.Request) -> httpx.Response:
        return await handler(json.loads(request.content))

    reported: list[Progress] = []
    async with AsyncGRMClient(transport=httpx.MockTransport(serve)) as client:
        final = await score_file(
            client, source, out, concurrency=concurrency, options=options, on_progress=reported.append
        )
    assert not reported or reported[-1] == final
    return reported
