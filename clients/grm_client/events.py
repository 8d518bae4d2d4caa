"""A stream of server-sent events, read as it comes. Bytes in, events out; both clients share it.

The format: https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx

from grm_client.errors import APIError, ConnectionFailed
from grm_client.transport import Outcome, api_error, bad_answer, beginning, json_object, stated_error, transport_error

MEDIA_TYPE = "text/event-stream"


class Event(NamedTuple):
    """Something that happened to a request."""

    name: str
    """"started", then "sample" and "wave" as they come, then "rewards", the answer. A newer server may say more."""
    data: dict[str, Any]
    """As StartedOut, SampleOut, WaveOut and RewardsResponse of the server's OpenAPI document; of the last one
    `Rewards(**data)` is the typed form."""


def is_stream(response: httpx.Response) -> bool:
    """Whether what comes is events. Anything else is read whole, for its error."""
    return response.status_code == 200 and response.headers.get("content-type", "").startswith(MEDIA_TYPE)


def opened(outcome: Outcome, base_url: str) -> httpx.Response:
    """The response whose events can be read, or the error that this outcome amounts to."""
    if isinstance(outcome, httpx.RequestError):
        raise transport_error(outcome, base_url) from outcome
    if outcome.status_code != 200:
        raise api_error(outcome)
    if not is_stream(outcome):
        bad_answer(f"no event stream: {outcome.text[:200]}")
    return outcome


class EventReader:
    """Reads one stream. `answered` once the rewards have come."""

    def __init__(self) -> None:
        self.answered = False
        self._rest = b""
        self._after_cr = False
        self._first = True
        self._name = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """The events that end in this chunk. Raises APIError for an `error` event, and for one that cannot be read."""
        for line in self._lines(chunk):
            # A comment has no field; `id` and `retry` are about reconnecting, which a POST does not do.
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
        """Raise what the end of the stream means, unless the answer came before it. What is left of an event that was
        not finished does not count."""
        if self.answered:
            return
        if failure is not None:
            raise transport_error(failure, base_url) from failure
        raise ConnectionFailed(f"the stream from {base_url} ended before its answer")

    def _lines(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk. They end with LF, CR or both; in `str` further characters would count."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        lines = (self._rest + chunk).splitlines(keepends=True)
        self._rest = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        if lines and self._first:
            self._first = False
            lines[0] = lines[0].removeprefix(codecs.BOM_UTF8)
        return [line.rstrip(b"\r\n") for line in lines]

    def _event(self, name: str, data: bytes) -> Event:
        if name == "error":
            raise stated_error(200, data) or APIError(
                200, "bad_answer", f"an error of another shape: {beginning(data)}"
            )
        self.answered = self.answered or name == "rewards"
        return Event(name, json_object(data))
