"""Reads request bodies, and refuses expensive ones while they arrive, before anything parses them."""

from __future__ import annotations

import asyncio
import re
import zlib

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grm_server.api.error_handlers import error_response
from grm_server.errors import (
    BodiesTooMany,
    BodyTimeout,
    BodyTooLarge,
    ConnectionsTooMany,
    GRMError,
    InvalidBody,
    WrongMediaType,
)
from grm_server.settings import HTTPSettings
from grm_server.telemetry.metrics import Metrics

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""An unterminated string extends to the end of the body. No backtracking, so any body costs linear time."""
_BRACKET = re.compile(rb"[\[{\]}]")

CROWDED = "grm_crowded"
"""In the `state` of an ASGI scope: the limit of open files has no room for this connection, so a POST is refused."""


class BodyLimitMiddleware:
    """A body must be JSON of bounded size and shape, and arrive in time."""

    def __init__(self, app: ASGIApp, limits: HTTPSettings, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._metrics = metrics
        self._arriving = 0
        """Bytes received of bodies that are still incomplete."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            headers = Headers(scope=scope)
            self._check_declared_length(headers)
            body = await self._read_in_time(receive)
            # After the body: a client that still sends may not read the answer.
            if scope["method"] == "POST" and scope.get("state", {}).get(CROWDED):
                raise ConnectionsTooMany("too many connections are open; retry soon")
            if body:
                _check_media_type(headers)
                body = unpacked(body, headers, self._limits.max_body_bytes)
                check_shape(body, max_items=self._limits.max_body_items, max_depth=self._limits.max_body_depth)
        except GRMError as error:
            self._metrics.http.refused.labels(error.code).inc()
            # A slow sender would keep the connection open for as long as it sends.
            close = {"Connection": "close"} if isinstance(error, BodyTimeout | BodiesTooMany) else {}
            return await error_response(error, close)(scope, receive, send)
        unread = [body]

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await receive()

        return await self._app(scope, replay, send)

    def _check_declared_length(self, headers: Headers) -> None:
        declared = headers.get("content-length", "0")
        # More than 18 digits exceed any limit; int() refuses thousands of digits.
        limit = self._limits.max_body_bytes
        if declared.isascii() and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
            raise self._too_large()

    async def _read_in_time(self, receive: Receive) -> bytes:
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                return await self._read(receive)
        except TimeoutError:
            raise BodyTimeout(
                f"the body did not arrive within http.body_timeout_s = {self._limits.body_timeout_s:g}"
            ) from None

    async def _read(self, receive: Receive) -> bytes:
        """The whole body; if the client disconnects, what it had sent."""
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
                if size > self._limits.max_body_bytes:
                    raise self._too_large()
                if more and self._arriving > self._limits.max_reading_bytes:
                    raise BodiesTooMany("too many large bodies are being received; retry soon")
            return b"".join(chunks)
        finally:
            self._arriving -= size

    def _too_large(self) -> BodyTooLarge:
        limit = self._limits.max_body_bytes
        return BodyTooLarge(f"the body is over the limit http.max_body_bytes = {limit}", details={"limit": limit})


def _check_media_type(headers: Headers) -> None:
    """Pages of other sites can send forms and plain text without a preflight, but not JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise WrongMediaType("the body must be JSON, sent with Content-Type: application/json")


def unpacked(body: bytes, headers: Headers, limit: int) -> bytes:
    """The body without its Content-Encoding. Inflating stops at `limit` bytes, so a small body cannot fill the memory.

    Raises BodyTooLarge, InvalidBody for broken data, and WrongMediaType for an encoding other than gzip and deflate.
    """
    encoding = headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise WrongMediaType(
            "only gzip and deflate bodies are unpacked: compress with gzip, or remove Content-Encoding"
        )
    # 32: recognise gzip and zlib by their first bytes.
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise InvalidBody(f"the body is not {encoding} data, which its Content-Encoding promises") from None
    if len(plain) > limit:
        raise BodyTooLarge(
            f"the unpacked body is over the limit http.max_body_bytes = {limit}", details={"limit": limit}
        )
    if not inflater.eof or inflater.unused_data:
        raise InvalidBody(f"the {encoding} data of the body is cut off, or something follows it")
    return plain


def check_shape(body: bytes, *, max_items: int, max_depth: int) -> None:
    """Bound what the JSON in `body` costs to parse, by counting in its bytes.

    Texts are cheap at any length. Many values are expensive: 4 MiB of `[],[],...` take seconds to parse, and
    reporting many wrong fields takes longer still.

    Raises InvalidBody for more than `max_items` strings, objects and lists, or nesting deeper than `max_depth`. Other
    malformed JSON is left to the parser.
    """
    if b"\0" in body:
        raise InvalidBody("the body is not JSON in UTF-8: it holds a zero byte")
    brackets = body.count(b"[") + body.count(b"{")
    if brackets <= max_depth and brackets + body.count(b'"') // 2 <= max_items:
        return
    rest, strings = _STRING.subn(b"", body, count=max_items + 1)
    items = strings + rest.count(b"[") + rest.count(b"{")
    if items > max_items:
        raise InvalidBody(
            f"the body holds more strings, objects and lists than http.max_body_items = {max_items}",
            details={"limit": max_items},
        )
    depth = 0
    for bracket in _BRACKET.finditer(rest):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > max_depth:
            raise InvalidBody(
                f"the body nests objects and lists deeper than http.max_body_depth = {max_depth}",
                details={"limit": max_depth},
            )
