"""Graceful shutdown: refuse new work, give in-flight requests time to finish, then answer the rest with an error."""

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
    """The in-flight requests of a server, and whether it still accepts new ones."""

    def __init__(self) -> None:
        self.draining = False
        self._in_flight: set[asyncio.Timeout] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """POST requests whose response is incomplete."""
        return len(self._in_flight)

    def raise_if_draining(self) -> None:
        """Raises ShuttingDown."""
        if self.draining:
            raise ShuttingDown("the server is shutting down: draining")

    def begin(self) -> None:
        """Refuse new requests from now on."""
        self.draining = True

    async def idle(self) -> None:
        """Wait until no request is in flight."""
        await self._idle.wait()

    def expire(self) -> None:
        """Abort all in-flight requests."""
        for timeout in self._in_flight:
            timeout.reschedule(asyncio.get_running_loop().time())

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Count one request as in flight. Raises ShuttingDown if draining, or if `expire` aborts it."""
        self.raise_if_draining()
        timeout = asyncio.timeout(None)
        try:
            async with timeout:
                self._in_flight.add(timeout)
                self._idle.clear()
                try:
                    yield
                finally:
                    self._in_flight.discard(timeout)
                    if not self._in_flight:
                        self._idle.set()
        except TimeoutError:
            if not timeout.expired():
                raise
            raise ShuttingDown("the server shut down before this request was finished") from None


class DrainMiddleware:
    """Counts in-flight POST requests. While the server drains, refuses new ones; aborted ones get ShuttingDown."""

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
                if self._drain.draining:
                    # The next request on this connection would find no server.
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)

        try:
            async with self._drain.request():
                await self._app(scope, receive, watch)
        except ShuttingDown as error:
            if not started:
                return await error_response(error, {"Connection": "close"})(scope, receive, send)
            if streams and not ended:
                await send({"type": "http.response.body", "body": error_event(error), "more_body": False})
