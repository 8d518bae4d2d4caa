"""Limits on a connection before its request is complete: uvicorn bounds neither the size of headers nor how long they
take, and at that point no key has been checked."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from grm_server.settings import HTTPSettings

MAX_HEAD_BYTES = 64 * 2**10
"""Of request line and headers; more than other servers accept. One read beyond it may get through."""


def header_timeout_protocol(limits: HTTPSettings) -> type[asyncio.Protocol]:
    """uvicorn's protocol, closing connections that send headers too slowly (slowloris) or too large."""

    class HeaderTimeoutProtocol(HttpToolsProtocol):
        _idle_bytes = 0
        """Bytes received since the last complete head or part of a body."""
        _in_head = True
        _timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._start_timer(limits.head_timeout_s)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._in_head and self._timer is None:
                self._start_timer(limits.head_timeout_s)
            self._idle_bytes += len(data)
            super().data_received(data)
            if self._idle_bytes > MAX_HEAD_BYTES:
                self.transport.close()

        def on_headers_complete(self) -> None:
            self._idle_bytes, self._in_head = 0, False
            self._stop_timer()
            super().on_headers_complete()

        def on_body(self, body: bytes) -> None:
            self._idle_bytes = 0
            super().on_body(body)

        def on_message_complete(self) -> None:
            self._idle_bytes, self._in_head = 0, True
            self._stop_timer()
            super().on_message_complete()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if not self._in_head:
                # The body was refused, and the client still sends it.
                self._start_timer(limits.body_timeout_s)

        def _start_timer(self, seconds: float) -> None:
            self._stop_timer()
            self._timer = self.loop.call_later(seconds, self.transport.close)

        def _stop_timer(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    return HeaderTimeoutProtocol
