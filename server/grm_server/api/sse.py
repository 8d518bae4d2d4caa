"""Server-sent events: the pipeline's events as they happen, with heartbeats between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import cast

import anyio
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from grm_server.api.error_handlers import error_detail, internal_error
from grm_server.api.schemas import ErrorResponse
from grm_server.errors import GRMError
from grm_server.judging.store import Progress

HEARTBEAT_S = 10.0
"""Many proxies close connections that are idle for a minute, some earlier."""

MEDIA_TYPE = "text/event-stream"
NamedEvent = tuple[str, BaseModel]
"""An event's name and its data."""


class EventStream(StreamingResponse):
    """Streams `events`, each converted by `to_named`. An error ends the stream as its last event; if the client
    disconnects, `events` is closed."""

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[Progress], to_named: Callable[[Progress], NamedEvent]) -> None:
        super().__init__(_lines(events, to_named), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            # If the client disconnects while a write to it blocks, Starlette does not close the generator.
            with anyio.CancelScope(shield=True):
                await cast(AsyncGenerator[bytes], self.body_iterator).aclose()


async def _lines(events: AsyncGenerator[Progress], to_named: Callable[[Progress], NamedEvent]) -> AsyncGenerator[bytes]:
    lines: asyncio.Queue[bytes | None] = asyncio.Queue()
    work = asyncio.ensure_future(_write(events, to_named, lines))
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
        # After a disconnect, every await of this task raises CancelledError; the shield lets it abort the samples.
        with anyio.CancelScope(shield=True):
            work.cancel()
            await asyncio.wait((work,))


async def _write(
    events: AsyncGenerator[Progress], to_named: Callable[[Progress], NamedEvent], lines: asyncio.Queue[bytes | None]
) -> None:
    """Queue all events as they happen, then None.

    A slow stream reader must delay neither its request's waves nor their deadline. The queue needs no limit: it holds
    little more than the final answer does.
    """
    try:
        async with aclosing(events):
            async for event in events:
                lines.put_nowait(_format(*to_named(event)))
    except GRMError as error:
        lines.put_nowait(error_event(error))
    except Exception as error:
        lines.put_nowait(_format("error", ErrorResponse(error=internal_error(error))))
    lines.put_nowait(None)


def error_event(error: GRMError) -> bytes:
    """The last event of a stream that fails."""
    return _format("error", ErrorResponse(error=error_detail(error)))


def _format(name: str, data: BaseModel) -> bytes:
    # ASCII: the data is split into lines at U+2028 and similar characters, which JSON does not escape.
    return format_sse_event(event=name, data_str=data.model_dump_json(ensure_ascii=True))
