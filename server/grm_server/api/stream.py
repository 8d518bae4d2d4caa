"""Server-sent events: the pipeline's events as they happen, heartbeats between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import cast

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from grm_server.api.error_table import error_detail, unexpected
from grm_server.api.schemas import ErrorResponse
from grm_server.errors import GRMError
from grm_server.serving.judgements import Progress

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
    coming: asyncio.Future[Progress | None] | None = None
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
        yield error_event(error)
    except Exception as error:
        yield _format("error", ErrorResponse(error=unexpected(error)))
    finally:
        # When the caller leaves, this task is cancelled at every await; the samples must be aborted all the same.
        with anyio.CancelScope(shield=True):
            if coming is not None and not coming.done():
                coming.cancel()
                await asyncio.wait((coming,))
            await events.aclose()


def error_event(error: GRMError) -> bytes:
    """The last event of a stream that fails."""
    return _format("error", ErrorResponse(error=error_detail(error)))


def _format(name: str, data: BaseModel) -> bytes:
    # ASCII: the data is cut into lines at U+2028 and its like, which JSON leaves as they are.
    return format_sse_event(event=name, data_str=data.model_dump_json(ensure_ascii=True))
