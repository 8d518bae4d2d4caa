"""The end of a server: no new work, time for what is under way, and an answer for what is not done by then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grm_server.api.error_handlers import error_response
from grm_server.api.sse import MEDIA_TYPE, error_event
from grm_server.errors import ShuttingDown


class Drain:
    """What is under way, and whether it is the last."""

    def __init__(self) -> None:
        self.began = False
        self._work: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """Requests for work that have no whole answer yet."""
        return len(self._work)

    def raise_if_draining(self) -> None:
        """Raises ShuttingDown once it has begun."""
        if self.began:
            raise ShuttingDown("the server is shutting down: draining")

    def begin(self) -> None:
        self.began = True

    async def idle(self) -> None:
        """Wait until nothing is under way."""
        await self._idle.wait()

    def expire(self) -> None:
        """Give up what is under way."""
        for limit in self._work:
            limit.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Raises ShuttingDown where the work was given up before its end."""
        self.raise_if_draining()
        limit = asyncio.timeout(None)
        try:
            async with limit:
                self._work.add(limit)
                self._idle.clear()
                try:
                    yield
                finally:
                    self._work.discard(limit)
                    if not self._work:
                        self._idle.set()
        except TimeoutError:
            if not limit.expired():
                raise
            raise ShuttingDown("the server was shut down before this request was done") from None


class Draining:
    """ASGI middleware: counts what asks for work, and refuses it or hands it back when the server ends."""

    def __init__(self, app: ASGIApp, drain: Drain) -> None:
        self._app = app
        self._drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        started = ended = streams = False

        async def watch(message: Message) -> None:
            nonlocal started, ended, streams
            if message["type"] == "http.response.start":
                started = True
                streams = Headers(scope=message).get("content-type", "").startswith(MEDIA_TYPE)
                if self._drain.began:
                    # The next request on this connection would find nobody.
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            async with self._drain.work():
                await self._app(scope, receive, watch)
        except ShuttingDown as error:
            if not started:
                return await error_response(error, {"Connection": "close"})(scope, receive, send)
            if streams and not ended:
                await send({"type": "http.response.body", "body": error_event(error), "more_body": False})
