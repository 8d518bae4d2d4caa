"""Parse a stream of server-sent events: bytes in, events out. Shared by both clients.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

from grm_client.connection import transport_error
from grm_client.errors import APIError, ConnectionFailed
from grm_client.transport import (
    Outcome,
    api_error,
    as_rewards,
    bad_answer,
    excerpt,
    json_object,
    server_error,
)
from grm_client.types import Rewards

MEDIA_TYPE = "text/event-stream"


class Event(NamedTuple):
    """One step of a request that is being judged."""

    name: str
    """"started", then "sample" and "wave" as they finish, then "rewards", the answer. A newer server may send more."""
    data: dict[str, Any]
    """StartedOut, SampleOut, WaveOut or RewardsResponse of the server's OpenAPI document."""

    @property
    def rewards(self) -> Rewards | None:
        """The answer, if this is the last event; None for all others. Raises APIError if it cannot be read."""
        return as_rewards(self.data) if self.name == "rewards" else None


def is_stream(response: httpx.Response) -> bool:
    """Whether the body is an event stream. Any other body is read whole, for its error."""
    return response.status_code == 200 and response.headers.get("content-type", "").startswith(MEDIA_TYPE)


def stream_response(outcome: Outcome, base_url: str) -> httpx.Response:
    """The response with the event stream. Raises the error of an outcome that has none."""
    if isinstance(outcome, httpx.RequestError):
        raise transport_error(outcome, base_url) from outcome
    if outcome.status_code != 200:
        raise api_error(outcome)
    if not is_stream(outcome):
        bad_answer(f"expected an event stream, got: {outcome.text[:200]}")
    return outcome


class EventReader:
    """Incremental parser of one stream."""

    def __init__(self) -> None:
        self.has_rewards = False
        """Whether the answer, the `rewards` event, was read."""
        self._buffer = b""
        self._after_cr = False
        self._first = True
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that end in this chunk. Raises APIError for an `error` event and for unreadable data."""
        for line in self._lines(chunk):
            # A comment has an empty field name. `id` and `retry` are for reconnecting, which a POST does not do.
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"data":
                self._data.append(value)
            elif field == b"event":
                self._name = value
            elif not line:
                name, data = self._name.decode(errors="replace") or "message", b"\n".join(self._data)
                self._name, has_data, self._data = b"", bool(self._data), []
                if has_data:
                    yield self._event(name, data)

    def end(self, failure: httpx.RequestError | None, base_url: str) -> None:
        """Raise an error if the stream ended or failed before its answer. An unfinished event is dropped."""
        if self.has_rewards:
            return
        if failure is not None:
            raise transport_error(failure, base_url) from failure
        raise ConnectionFailed(f"the stream from {base_url} ended before its answer")

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk, with LF, CR or CR LF. Splits bytes: `str.splitlines` has more line ends."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = (self._buffer + chunk).splitlines(keepends=True)
        self._buffer = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        if lines and self._first:
            self._first = False
            lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
        return [line.rstrip(b"\r\n") for line in lines]

    def _event(self, name: str, data: bytes) -> Event:
        if name == "error":
            raise server_error(200, data) or APIError(200, "bad_answer", f"unreadable error event: {excerpt(data)}")
        self.has_rewards = self.has_rewards or name == "rewards"
        return Event(name, json_object(data))
