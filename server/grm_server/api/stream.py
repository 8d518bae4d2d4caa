"""Server-sent events: the pipeline's events as they happen, heartbeats between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel

from grm_server.api.error_table import error_detail
from grm_server.api.schemas import ErrorResponse
from grm_server.errors import GRMError
from grm_server.pipeline.types import Event

HEARTBEAT_S = 10.0
"""Proxies cut connections that are silent for a minute, some earlier."""

MEDIA_TYPE = "text/event-stream"
Named = tuple[str, BaseModel]
"""An event's name and its data."""


def wants_stream(request: Request) -> bool:
    """Whether the caller accepts events."""
    return MEDIA_TYPE in request.headers.get("accept", "").lower()


def stream(events: AsyncGenerator[Event], name: Callable[[Event], Named]) -> StreamingResponse:
    """The events that `name` names. A caller that leaves closes `events`; an error of theirs is the last event."""
    return StreamingResponse(
        _lines(events, name), media_type=MEDIA_TYPE, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


async def _lines(events: AsyncGenerator[Event], name: Callable[[Event], Named]) -> AsyncGenerator[bytes]:
    coming: asyncio.Future[Event | None] | None = None
    try:
        while True:
            coming = asyncio.ensure_future(anext(events, None))
            while not (await asyncio.wait((coming,), timeout=HEARTBEAT_S))[0]:
                yield KEEPALIVE_COMMENT
            event = coming.result()
            if event is None:
                return
            yield _format(*name(event))
    except GRMError as error:
        yield _format("error", ErrorResponse(error=error_detail(error)))
    finally:
        # When the caller leaves, this task is cancelled at every await; the samples must be aborted all the same.
        with anyio.CancelScope(shield=True):
            if coming is not None and not coming.done():
                coming.cancel()
                await asyncio.wait((coming,))
            await events.aclose()


def _format(name: str, data: BaseModel) -> bytes:
    # ASCII: the data is cut into lines at U+2028 and its like, which JSON leaves as they are.
    return format_sse_event(event=name, data_str=data.model_dump_json(ensure_ascii=True))
