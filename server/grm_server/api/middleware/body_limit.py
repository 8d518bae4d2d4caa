"""Reads the body of a request, and refuses what would cost too much: while it arrives, before anything parses it."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grm_server.api.error_handlers import error_response
from grm_server.api.middleware.json_shape import check_shape
from grm_server.errors import BodiesTooMany, BodyTimeout, BodyTooLarge, GRMError, WrongMediaType
from grm_server.settings import HTTPSettings
from grm_server.telemetry.metrics import Metrics


class BodyLimit:
    """ASGI middleware: a body is JSON, of a bounded size and shape, and arrives in time."""

    def __init__(self, app: ASGIApp, limits: HTTPSettings, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._arriving = 0
        """Bytes of bodies that are not there in full."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            headers = Headers(scope=scope)
            self._check_declared(headers)
            body = await self._read_in_time(receive)
            if body:
                _check_media_type(headers)
                check_shape(body, max_items=self._limits.max_body_items, max_depth=self._limits.max_body_depth)
        except GRMError as error:
            self._metrics.refused.labels(error.code).inc()
            # Whoever sends so slowly is not waited for; else the connection would stay as long as it sends.
            close = {"Connection": "close"} if isinstance(error, BodyTimeout | BodiesTooMany) else {}
            return await error_response(error, close)(scope, receive, send)
        unread = [body]

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await receive()

        return await self._app(scope, replay, send)

    def _check_declared(self, headers: Headers) -> None:
        declared = headers.get("content-length", "0")
        # Longer than any limit in digits is longer; int() would refuse thousands of them.
        if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > self._most):
            raise self._too_large()

    async def _read_in_time(self, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                return await self._read(receive)
        except TimeoutError:
            raise BodyTimeout(
                f"the body did not come within http.body_timeout_s = {self._limits.body_timeout_s:g}"
            ) from None

    async def _read(self, receive: Receive) -> bytes:
        """The whole body. A client that leaves has sent what it has sent."""
        chunks: list[bytes] = []
        size, more = 0, True
        try:
            while more:
                message = await receive()
                chunk: bytes = message.get("body", b"")
                chunks.append(chunk)
                size += len(chunk)
                self._arriving += len(chunk)
                more = message.get("more_body", False)
                if size > self._most:
                    raise self._too_large()
                if more and self._arriving > self._limits.max_reading_bytes:
                    raise BodiesTooMany("too many large requests are on their way in; try again soon")
            return b"".join(chunks)
        finally:
            self._arriving -= size

    @property
    def _most(self) -> int:
        return self._limits.max_body_bytes

    def _too_large(self) -> BodyTooLarge:
        return BodyTooLarge(
            f"the body is over the limit http.max_body_bytes = {self._most}", details={"limit": self._most}
        )


def _check_media_type(headers: Headers) -> None:
    """A page of another site can send a form or plain text without asking, but nothing that is called JSON."""
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise WrongMediaType("compressed bodies are not understood: leave out Content-Encoding")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise WrongMediaType("the body must be JSON and say so: Content-Type: application/json")
