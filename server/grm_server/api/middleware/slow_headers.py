"""Limits on a connection before its request is complete: uvicorn bounds neither the size of headers nor how long they
take, and at that point no key has been checked. And an answer for clients that half-close after their request, and for
those that the limit of open files leaves no room for."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from grm_server.api.middleware.body_limit import CROWDED
from grm_server.settings import HTTPSettings

MAX_HEAD_BYTES = 64 * 2**10
"""Of request line and headers; more than other servers accept. One read beyond it may get through."""
PROBE_S = 0.25
"""Interval of the probes to a client that has closed its side of the connection."""


def header_timeout_protocol(limits: HTTPSettings, max_connections: int) -> type[asyncio.Protocol]:
    """uvicorn's protocol, closing connections that send headers too slowly (slowloris) or too large.

    Connections beyond `max_connections` are closed after their first answer.

    A client may half-close the connection after its request (`shutdown(SHUT_WR)`, RFC 9112 9.6) and read the answer.
    TCP tells that apart from a client that is gone only when we send something: one that is gone resets the connection.
    So we send interim responses, which clients skip, until the answer begins.
    """

    class HeaderTimeoutProtocol(HttpToolsProtocol):
        _idle_bytes = 0
        """Bytes received since the last complete head or part of a body."""
        _in_head = True
        _timer: asyncio.TimerHandle | None = None
        _prober: asyncio.TimerHandle | None = None
        _crowded = False

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._crowded = len(self.connections) > max_connections
            self._start_timer(limits.head_timeout_s)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            if self._prober is not None:
                self._prober.cancel()
            super().connection_lost(exc)

        def eof_received(self) -> bool | None:  # type: ignore[override]
            cycle = self.cycle
            if cycle is None or cycle.response_complete or cycle.more_body:
                return None  # closes the connection
            cycle.keep_alive = False
            self._probe()
            return True

        def _probe(self) -> None:
            """Until the last answer begins. A failed write ends the connection. HTTP/1.0 has no interim answers."""
            if self.transport.is_closing() or self.cycle.response_started:
                return
            # While requests wait in the pipeline, the answer to an earlier one may be half written.
            if not self.pipeline and self.cycle.scope["http_version"] != "1.0":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._prober = self.loop.call_later(PROBE_S, self._probe)

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
            # Others may have closed theirs since this connection was made.
            self._crowded = self._crowded and len(self.connections) > max_connections
            self.scope["state"][CROWDED] = self._crowded
            super().on_headers_complete()
            if self._crowded:
                self.cycle.keep_alive = False

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
