"""The error classes of the server, one for each kind of failure.

    GRMError
      InvalidRequest          400   the request breaks a rule that its schema cannot express
        PromptTooLong         400   prompt and token budget exceed the model's context
      Overloaded              429   the queue is full; `Retry-After` estimates when there will be room
        DeadlineUnreachable   429   the request would time out in the queue
      LimitExceeded           422   a field exceeds a limit of this server
      InvalidBody             422   the body is not JSON, or too costly to parse
      BodyTooLarge            413   the body has too many bytes
      BodyTimeout             408   reading the body timed out
      BodiesTooMany           503   too many bytes of request bodies are being read
      ConnectionsTooMany      503   more connections than the limit of open files has room for
      WrongMediaType          415   the Content-Type is not JSON, or the Content-Encoding is unknown
      WrongHost               421   the Host header is not allowed
      Unauthenticated         401   the API key is missing or invalid
      RateLimited             429   the API key has exceeded its requests or samples per minute
      ShuttingDown            503   the server is shutting down
      JudgementNotKept        404   no stored judgement has this id
      SlotConflict            409   a slot of a group holds another response, or its attempt was replaced
      ClientGone              499   the client disconnected; its samples were aborted; never sent
      EngineError
        GenerationFailed      502   one sample failed; the pipeline turns it into data; never sent
        EngineDead            503   the engine is dead and not restarting soon; readiness fails
        MetaRMFailed          503   the meta RM did not rate a sample, and the request allows no plain vote
      TooFewVotes             502   fewer samples parsed than `min_votes`
      Superseded              503   a later attempt at the group replaced this one
      DeadlineExceeded        504   fewer than `min_votes` samples at the deadline; the others were aborted

Each class carries what the HTTP layer needs (`code`, `status`, `retryable`), so there is no second table to keep in
sync. The failure of one sample is data (`grm.types.Failure`); only a failure of the whole request is raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar


class GRMError(Exception):
    """A failure of a request that is reported to the client."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    retry_after_s: int | None = None
    """Whole seconds. An instance may override the value of its class."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        details: Mapping[str, int] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s
        self.message = message
        self.param = param
        """The request field at fault, or None."""
        self.details = dict(details or {})
        """Counts that explain the failure, e.g. {"prompt_tokens": 9000, "limit": 8192}."""


class InvalidRequest(GRMError):
    """The request breaks a rule that its schema cannot express."""

    code = "invalid_request"
    status = 400


class PromptTooLong(InvalidRequest):
    """Prompt and token budget exceed the model's context. No samples were generated."""

    code = "prompt_too_long"
    oversized: Sequence[int] = ()
    """Indices of the responses to remove so the others fit; all, if none fits alone. Empty if unknown."""


class LimitExceeded(GRMError):
    """A field exceeds a limit of this server."""

    code = "limit_exceeded"
    status = 422


class Overloaded(GRMError):
    """The queue is full. No samples were generated."""

    code = "overloaded"
    status = 429
    retryable = True

    def __init__(
        self, message: str, *, retry_after_s: int, param: str | None = None, details: Mapping[str, int] | None = None
    ) -> None:
        """retry_after_s: estimated from the engine's recent throughput."""
        super().__init__(message, param=param, details=details, retry_after_s=retry_after_s)


class DeadlineUnreachable(Overloaded):
    """The request would wait in the queue until too close to its deadline. No samples were generated."""

    code = "deadline_unreachable"


class InvalidBody(GRMError):
    """The body is not JSON, or is JSON that would be too costly to parse."""

    code = "invalid_body"
    status = 422


class BodyTooLarge(GRMError):
    """The request body has more bytes than the server accepts."""

    code = "body_too_large"
    status = 413


class BodyTimeout(GRMError):
    """Reading the request body timed out."""

    code = "body_timeout"
    status = 408
    retryable = True


class BodiesTooMany(GRMError):
    """The server is already reading as many bytes of request bodies as it accepts at once."""

    code = "bodies_too_many"
    status = 503
    retryable = True
    retry_after_s = 1


class ConnectionsTooMany(GRMError):
    """The server holds as many connections as its limit of open files has room for; its log says how to raise it."""

    code = "connections_too_many"
    status = 503
    retryable = True
    retry_after_s = 1


class WrongMediaType(GRMError):
    """The Content-Type is not JSON, or the Content-Encoding is neither gzip nor deflate."""

    code = "wrong_media_type"
    status = 415


class WrongHost(GRMError):
    """The Host header is not allowed. This protects against DNS rebinding: a web page may have pointed that name at
    this server."""

    code = "wrong_host"
    status = 421


class Unauthenticated(GRMError):
    """The API key is missing or invalid."""

    code = "unauthenticated"
    status = 401


class RateLimited(GRMError):
    """The API key has used up its requests or samples; `Retry-After` says when it can send again."""

    code = "rate_limited"
    status = 429
    retryable = True


class ShuttingDown(GRMError):
    """The server is shutting down. Retry on another server, or on this one after its restart."""

    code = "shutting_down"
    status = 503
    retryable = True
    retry_after_s = 1


class JudgementNotKept(GRMError):
    """No stored judgement has this id; it may have expired."""

    code = "judgement_not_kept"
    status = 404


class SlotConflict(GRMError):
    """A slot of a group holds another response, or a later attempt replaced this one."""

    code = "slot_conflict"
    status = 409


class ClientGone(GRMError):
    """The client disconnected before the answer; its samples were aborted."""

    code = "client_gone"
    status = 499


class EngineError(GRMError):
    """The engine failed."""

    code = "engine_error"
    status = 502
    retryable = True


class GenerationFailed(EngineError):
    """One sample failed; the engine is still alive."""

    code = "generation_failed"


class EngineDead(EngineError):
    """The engine is dead and will not restart soon."""

    code = "engine_dead"
    status = 503
    retry_after_s = 30


class MetaRMFailed(EngineError):
    """The meta RM is dead, timed out, or returned no valid probability."""

    code = "meta_rm_failed"
    status = 503
    retry_after_s = 5


class TooFewVotes(GRMError):
    """Fewer samples than the request's `min_votes` had valid scores."""

    code = "too_few_votes"
    status = 502
    retryable = True


class Superseded(GRMError):
    """A later attempt at the same group replaced this one while it waited for other members."""

    code = "superseded"
    status = 503


class DeadlineExceeded(GRMError):
    """At the deadline, fewer samples than `min_votes` had valid scores; the others were aborted."""

    code = "deadline_exceeded"
    status = 504
    retryable = True
