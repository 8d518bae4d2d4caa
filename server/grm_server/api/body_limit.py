"""Refuses a request body that is too large while it arrives, before anything parses it."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grm_server.api.error_table import error_response
from grm_server.errors import BodyTooLarge


class BodyLimit:
    """ASGI middleware: at most `max_bytes` of body, whether or not its length was declared."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        too_long = declared.isdigit() and int(declared) > self._max_bytes
        body = None if too_long else await self._read(receive)
        if body is None:
            error = BodyTooLarge(
                f"the body is over the limit http.max_body_bytes = {self._max_bytes}",
                details={"limit": self._max_bytes},
            )
            return await error_response(error)(scope, receive, send)
        unread = [body]

        async def replay() -> Message:
            if unread:
                return {"type": "http.request", "body": unread.pop(), "more_body": False}
            return await receive()

        return await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body, or None as soon as it is too large. A client that leaves has sent what it has sent."""
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self._max_bytes:
                return None
            more = message.get("more_body", False)
        return b"".join(chunks)
