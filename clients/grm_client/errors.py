"""What can go wrong between a caller and the server.

    GRMClientError
      APIError            the server answered, but not with rewards
      TimedOut            the server took the request and did not answer in time
      ConnectionFailed    nobody answered
      Stopped             the scoring of a file stopped early; it can be resumed

Every class passes all of its arguments to `Exception`, so that errors survive pickling: trainers raise them in worker
processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class GRMClientError(Exception):
    """Anything that this package raises on purpose."""


class APIError(GRMClientError):
    """The server, or a proxy before it, answered something other than rewards."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        param: str | None = None,
        retryable: bool = False,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(status, code, message, param, retryable, details)
        self.status = status
        """HTTP status; 200 where a stream had begun."""
        self.code = code
        """The server's name for the error; "http_error": not an answer of GRM Server, "bad_answer": a 200 that could
        not be read."""
        self.message = message
        self.param = param
        """The request field at fault, as a dotted path, or None."""
        self.retryable = retryable
        """Whether the same request may succeed later."""
        self.details = dict(details or {})
        """Counts that explain the error, e.g. {"prompt_tokens": 9000, "limit": 8192}."""

    def __str__(self) -> str:
        return f"{self.message} ({self.code}, HTTP {self.status})"


class TimedOut(GRMClientError):
    """No answer within `timeout_s`. Not tried again: the server may still be busy with the first attempt."""


class ConnectionFailed(GRMClientError):
    """Nobody listens at the address, or the connection broke, on every attempt."""


class Stopped(GRMClientError):
    """A file was scored in part. What is written is whole; the message says how to go on."""
