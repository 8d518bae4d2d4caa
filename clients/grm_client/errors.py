"""Errors of the client.

    GRMClientError
      APIError            the server answered, but not with rewards
      InvalidRequest      the request could not be sent, e.g. its text is not valid Unicode
      TimedOut            the server took the request and did not answer in time
      ConnectionFailed    the server could not be reached, or the connection broke
      Stopped             processing a file stopped early; it can be resumed

Every class passes all its arguments to `Exception`, so errors survive pickling: trainers raise them in worker
processes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class GRMClientError(Exception):
    """Base class of all errors that this package raises on purpose."""


class APIError(GRMClientError):
    """The server, or a proxy in front of it, answered with something other than rewards."""

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
        """HTTP status; 200 for an error in a stream that had started."""
        self.code = code
        """The server's error code. "http_error": the answer did not come from GRM Server. "bad_answer": a 200 whose
        body is not a valid answer."""
        self.message = message
        """What happened and what to do about it."""
        self.param = param
        """The request field at fault, as a dotted path, or None."""
        self.retryable = retryable
        """Whether the same request may succeed later."""
        self.details = dict(details or {})
        """Numbers that explain the error, e.g. {"prompt_tokens": 9000, "limit": 8192}."""

    def __str__(self) -> str:
        return f"{self.message} ({self.code}, HTTP {self.status})"


class InvalidRequest(GRMClientError):
    """The request was not sent: it is incomplete, or holds something that JSON cannot. The message says what."""


class TimedOut(GRMClientError):
    """No answer within `timeout_s`. Not retried: the server may still be working on the request."""


class ConnectionFailed(GRMClientError):
    """Every attempt failed to connect, or lost its connection."""


class Stopped(GRMClientError):
    """A file was processed in part. The rows written so far are complete; the message says how to resume."""
