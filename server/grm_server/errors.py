"""The errors of the server, named by the boundary that was crossed.

    GRMError
      InvalidRequest          400   the request breaks a rule that its schema cannot state
        PromptTooLong         400   prompt and budget exceed the model's context
      Overloaded              429   too many samples wait already; `Retry-After` says when there will be room
        DeadlineUnreachable   429   its turn would come too late for its deadline
      LimitExceeded           422   a field asks for more than this server gives
      InvalidBody             422   not JSON that this server would parse
      BodyTooLarge            413   more bytes than this server takes
      BodyTimeout             408   the body did not come in time
      BodiesTooMany           503   too many bytes of bodies are on their way in
      WrongMediaType          415   not JSON, by its headers
      WrongHost               421   the caller knows the server by a name that is not its own
      Unauthenticated         401   no API key, or one that is not valid
      RateLimited             429   the API key has used up its requests or samples of this minute
      ShuttingDown            503   the server is about to end
      JudgementNotKept        404   no judgement has this id, or it was forgotten
      SlotConflict            409   a slot of a group holds another response, or its attempt was replaced
      ClientGone              499   the caller hung up; its samples were aborted, nobody reads this
      EngineError
        GenerationFailed      502   one sample broke; the pipeline turns it into data, it reaches nobody alone
        EngineDead            503   the engine is gone and no other comes soon; readiness is red
        MetaRMFailed          503   the meta RM did not rate a sample, and the request wants no vote without it
      TooFewVotes             502   fewer samples parsed than `min_votes`
      Superseded              503   a later attempt at the group came while this one waited for its members
      DeadlineExceeded        504   fewer than `min_votes` samples were there at the deadline; the rest was aborted

Each class carries what the HTTP layer needs (`code`, `status`, `retryable`), so that no second table can disagree
with it. One sample's failure is data (`grm.types.Failure`); only what fails the whole request is raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar


class GRMError(Exception):
    """Any failure of a request that the caller can be told about."""

    code: ClassVar[str] = "internal_error"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    retry_after_s: int | None = None
    """Whole seconds. An error may know better than its class."""

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
    """The request breaks a rule that its schema cannot state."""

    code = "invalid_request"
    status = 400


class PromptTooLong(InvalidRequest):
    """The prompt and the token budget do not fit the model's context; nothing was generated."""

    code = "prompt_too_long"
    oversized: Sequence[int] = ()
    """The responses without which the others would fit; all, if none fits alone. Empty where nobody knows."""


class LimitExceeded(GRMError):
    """A field asks for more than the server is configured to give."""

    code = "limit_exceeded"
    status = 422


class Overloaded(GRMError):
    """Too much waits for the engine already; nothing was generated."""

    code = "overloaded"
    status = 429
    retryable = True

    def __init__(
        self, message: str, *, retry_after_s: int, param: str | None = None, details: Mapping[str, int] | None = None
    ) -> None:
        """retry_after_s: by what the engine has done of late."""
        super().__init__(message, param=param, details=details, retry_after_s=retry_after_s)


class DeadlineUnreachable(Overloaded):
    """By the time the request had its turn its deadline would be too near; nothing was generated."""

    code = "deadline_unreachable"


class InvalidBody(GRMError):
    """The body is no JSON, or JSON of a shape that would cost much to parse."""

    code = "invalid_body"
    status = 422


class BodyTooLarge(GRMError):
    """The request body holds more bytes than the server is configured to take."""

    code = "body_too_large"
    status = 413


class BodyTimeout(GRMError):
    """The body did not come in time."""

    code = "body_timeout"
    status = 408
    retryable = True


class BodiesTooMany(GRMError):
    """Too many bytes of request bodies are on their way in at once."""

    code = "bodies_too_many"
    status = 503
    retryable = True
    retry_after_s = 1


class WrongMediaType(GRMError):
    """The body is not JSON by its Content-Type, or is compressed."""

    code = "wrong_media_type"
    status = 415


class WrongHost(GRMError):
    """The request was sent to a name that is not this server's: perhaps a web page pointed that name here."""

    code = "wrong_host"
    status = 421


class Unauthenticated(GRMError):
    """There is no API key in the request, or none that is valid."""

    code = "unauthenticated"
    status = 401


class RateLimited(GRMError):
    """The API key has used up its requests or samples; `retry_after_s` says when it has some again."""

    code = "rate_limited"
    status = 429
    retryable = True


class ShuttingDown(GRMError):
    """The server is about to end. Another one, or this one once it is back, would take the request."""

    code = "shutting_down"
    status = 503
    retryable = True
    retry_after_s = 1


class JudgementNotKept(GRMError):
    """No judgement has this id, or it was forgotten."""

    code = "judgement_not_kept"
    status = 404


class SlotConflict(GRMError):
    """A slot of a group holds another response, or its attempt was replaced by a later one."""

    code = "slot_conflict"
    status = 409


class ClientGone(GRMError):
    """The caller hung up before the answer; its samples were aborted."""

    code = "client_gone"
    status = 499


class EngineError(GRMError):
    """The engine could not do its work."""

    code = "engine_error"
    status = 502
    retryable = True


class GenerationFailed(EngineError):
    """One generation broke while the engine lives on."""

    code = "generation_failed"


class EngineDead(EngineError):
    """The engine is gone, and no other one is waited for."""

    code = "engine_dead"
    status = 503
    retry_after_s = 30


class MetaRMFailed(EngineError):
    """The meta RM is gone, late or gave no probability."""

    code = "meta_rm_failed"
    status = 503
    retry_after_s = 5


class TooFewVotes(GRMError):
    """Fewer samples gave scores than the request's `min_votes`."""

    code = "too_few_votes"
    status = 502
    retryable = True


class Superseded(GRMError):
    """A later attempt at the same group came while this one waited for its members."""

    code = "superseded"
    status = 503


class DeadlineExceeded(GRMError):
    """The deadline came before `min_votes` samples gave scores; the rest was aborted."""

    code = "deadline_exceeded"
    status = 504
    retryable = True
