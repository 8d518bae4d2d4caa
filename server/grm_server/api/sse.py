"""Server-sent events: the pipeline's events as they happen, heartbeats between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from grm_server.api.error_handlers import error_detail, unexpected
from grm_server.api.schemas import ErrorResponse
from grm_server.errors import GRMError
from grm_server.judging.store import Progress

HEARTBEAT_S = 10.0
"""Proxies cut connections that are silent for a minute, some earlier."""

MEDIA_TYPE = "text/event-stream"
Named = tuple[str, BaseModel]
"""An event's name and its data."""


def wants_stream(request: Request) -> bool:
    """Whether the caller accepts events."""
    return MEDIA_TYPE in request.headers.get("accept", "").lower()


class EventStream(StreamingResponse):
    """The events that `name` names. A caller that leaves closes `events`; an error of theirs is the last event."""

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[Progress], name: Callable[[Progress], Named]) -> None:
        super().__init__(_lines(events, name), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # A caller that leaves while a write to it is blocked leaves the generator where it is.
            with anyio.CancelScope(shield=True):
                await cast(AsyncGenerator[bytes], self.body_iterator).aclose()


async def _lines(events: AsyncGenerator[Progress], name: Callable[[Progress], Named]) -> AsyncGenerator[bytes]:
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    work = asyncio.ensure_future(_write(events, name, lines))
    try:
        while True:
            try:
                line = await asyncio.wait_for(lines.get(), HEARTBEAT_S)
            except TimeoutError:
                line = KEEPALIVE_COMMENT
            if line is None:
                return
            yield line
    finally:
        # When the caller leaves, this task is cancelled at every await; the samples must be aborted all the same.
        with anyio.CancelScope(shield=True):
            work.cancel()
            await asyncio.wait((work,))


async def _write(
    events: AsyncGenerator[Progress], name: Callable[[Progress], Named], lines: asyncio.Queue[bytes | None]
) -> None:
    """All events, then None, as they happen: a reader that stalls must hold up neither its request's waves nor its
    deadline. What waits for the reader is not much more than the answer.
    """
    try:
        async with aclosing(events):
            async for event in events:
                lines.put_nowait(_format(*name(event)))
    except GRMError as error:
        lines.put_nowait(error_event(error))
    except Exception as error:
        lines.put_nowait(_format("error", ErrorResponse(error=unexpected(error))))
    lines.put_nowait(None)


def error_event(error: GRMError) -> bytes:
    """The last event of a stream that fails."""
    return _format("error", ErrorResponse(error=error_detail(error)))


def _format(name: str, data: BaseModel) -> bytes:
    # ASCII: the data is cut into lines at U+2028 and its like, which JSON leaves as they are.
    return format_sse_event(event=name, data_str=data.model_dump_json(ensure_ascii=True))
