"""One exchange with the server, without the waiting: pure functions that both clients share.

request_body -> (HTTP) -> retry_delay -> (sleep, again) | read_outcome -> as_rewards      (streams: see `events`)
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypedDict, Unpack

import httpx
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from grm_client.errors import APIError, ConnectionFailed, GRMClientError, TimedOut
from grm_client.types import Rewards

Query = str | Sequence[Mapping[str, str]]
"""One user turn, or chat messages: {"role": ..., "content": ...}."""

Outcome = httpx.Response | httpx.RequestError
"""What became of one attempt."""


class RewardOptions(TypedDict, total=False):
    """What a request may say beside its query and responses. None, like absence, leaves an option to the server, which
    refuses one that it does not know."""

    k: int | None
    """Readings of each response at most; more readings, finer and steadier rewards, more time."""
    stop: Mapping[str, object] | None
    """When fewer than k are enough: {"rule": "fixed"}, {"rule": "decided", "gamma": 0.05, "target": "best"},
    {"rule": "strict", "delta": 0.05} or {"rule": "precision", "se": 0.4}."""
    deadline_s: float | None
    """Seconds until the votes there are must be returned. Keep it below the client's `timeout_s`."""
    aggregate: str | None
    """How samples are added up: "mean", "winsorised", "vote" or "borda"; with a meta RM "meta_hinge" or "meta_top"."""
    k_meta: int | None
    """"meta_top": how many of k samples vote; half of them if absent."""
    meta_rm_failure: str | None
    """When the meta RM fails: "error", or "vote" for the plain vote, which the answer then says."""
    reading: str | None
    """"sampled": scores as written; "expected": the last score of a sample as its expectation."""
    list_size: int | None
    """Responses that one sample shows at most; longer lists are judged in balanced blocks."""
    task: str | None
    """A tag for requests that are alike, such as "math"; they share what the server learns for `decided`."""
    temperature: float | None
    """Of principles, critique and scores."""
    seed: int | None
    """Fixes the orders and the seed of every sample."""
    max_critique_tokens: int | None
    """Budget of one sample's principles and critique together."""
    reference: str | None
    """A known good answer, shown to the judge."""
    principles: str | None
    """Criteria to judge under, instead of the judge's own."""
    principles_from: str | None
    """Without those: the judge writes its own in every "sample", or once for the "query", for all requests with it."""
    hint: int | None
    """The label, told to the judge: to collect training data, never to judge."""
    min_votes: int | None
    """Raise APIError rather than answer where a response has fewer scores."""
    priority: str | None
    """"high", "normal" or "low": which of the requests under your key go first where some must wait."""
    return_samples: bool | None
    """Also return what the judge wrote."""


REWARDS_PATH = "/v1/rewards"
READY_PATH = "/health/ready"
READY_TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 10.0
TIMEOUT_S = 660.0
"""Longer than a server lets any request take (600 s, `limits.max_deadline_s`): what is late is ended there, with the
votes there are or an error that says why, and never here, with nothing for the samples that were drawn."""

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
MAX_RETRY_AFTER_S = 60.0

RETRIED_STATUS = frozenset({429, 503})
RETRIED_ERRORS = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)


def http_options(base_url: str, api_key: str | None, timeout_s: float) -> dict[str, Any]:
    """Arguments that `httpx.Client` and `httpx.AsyncClient` have in common."""
    if not base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url must start with http:// or https://, got {base_url!r}")
    return {
        "base_url": base_url,
        "headers": {"user-agent": "grm-client"} | ({"authorization": f"Bearer {api_key}"} if api_key else {}),
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
        # How many requests run at once is the caller's choice and the server's to refuse; waiting unseen in a
        # connection pool would count against `timeout_s`.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),
        # HTTP_PROXY is obeyed, but no proxy can reach the caller's own machine for it.
        "mounts": {"all://127.0.0.1": None, "all://localhost": None},
    }


def request_body(query: Query, responses: Sequence[str], **options: Unpack[RewardOptions]) -> dict[str, Any]:
    """The JSON object to send; options that are None are left to the server's defaults."""
    if isinstance(responses, str):
        raise TypeError("responses must be a list of strings, not one string")
    messages = query if isinstance(query, str) else [dict(message) for message in query]
    given = {name: _plain(value) for name, value in options.items() if value is not None}
    return {"query": messages, "responses": list(responses), **given}


def _plain(value: object) -> object:
    """Mappings of any kind as the dicts that JSON knows."""
    return dict(value) if isinstance(value, Mapping) else value


def retry_delay(attempt: int, outcome: Outcome, rng: random.Random) -> float | None:
    """Seconds to wait before the next attempt, or None when another attempt would not help. `attempt` counts from 0.

    Only what says "not now" is tried again: a connection that failed, 429 and 503. Trying again is safe, although it
    is a POST: scoring asks a question and changes nothing that a caller relies on, so that a request that ran twice
    costs time. With a seed both runs are the same one; without, the caller still gets one answer. Where the server
    gathers single samples into groups, it knows the sample that comes again.
    A 502 or 504 is not repeated, for the server has drawn samples by then, or used up the deadline; to pay for that
    again is the caller's choice.
    """
    if isinstance(outcome, httpx.Response):
        if outcome.status_code not in RETRIED_STATUS:
            return None
    elif not isinstance(outcome, RETRIED_ERRORS):
        return None
    # Jitter also on top of Retry-After: callers that were turned away together must not come back together.
    # The exponent is bounded for callers that set max_retries to "for ever": 2.0 ** 1024 overflows.
    jitter = rng.uniform(0.0, min(FIRST_BACKOFF_S * 2.0 ** min(attempt, 10), MAX_BACKOFF_S))
    return _retry_after_s(outcome) + jitter


def _retry_after_s(outcome: Outcome) -> float:
    """The wait that the server asks for, at most a minute; 0 if it asks for none in whole seconds."""
    value = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
    return min(float(value), MAX_RETRY_AFTER_S) if value.isascii() and value.isdigit() else 0.0


def read_outcome(outcome: Outcome, base_url: str) -> dict[str, Any]:
    """The answer as the JSON object it is, or the error that this outcome amounts to."""
    if isinstance(outcome, httpx.RequestError):
        raise transport_error(outcome, base_url) from outcome
    if outcome.status_code != 200:
        raise api_error(outcome)
    return json_object(outcome.content)


def json_object(text: bytes) -> dict[str, Any]:
    """What the server wrote, an object. Raises APIError "bad_answer" for anything else."""
    try:
        value = strict_json(text)
    except ValueError as error:
        bad_answer(f"not JSON, {error}: {beginning(text)}")
    if not isinstance(value, dict):
        bad_answer(f"not a JSON object: {beginning(text)}")
    return value


def beginning(text: bytes) -> str:
    """At most 200 characters of what a server sent, for messages."""
    return text[:800].decode(errors="replace")[:200]


def strict_json(text: bytes) -> object:
    """Parse JSON that can be written again. Raises ValueError for bad UTF-8, lone surrogates, NaN and infinity."""
    value: object = from_json(text, allow_inf_nan=False)
    # 1e999 is a legal number and parses to infinity; only writing it shows it.
    json.dumps(value, allow_nan=False)
    return value


def as_rewards(answer: Mapping[str, Any]) -> Rewards:
    """The typed form of an answer."""
    try:
        return Rewards.model_validate(answer)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        bad_answer(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


def bad_answer(why: str) -> NoReturn:
    raise APIError(200, "bad_answer", f"the server's answer could not be read: {why}")


class _ErrorDetail(BaseModel):
    code: str
    message: str
    param: str | None = None
    retryable: bool = False
    details: dict[str, Any] = Field(default_factory=dict)


class _ErrorBody(BaseModel):
    error: _ErrorDetail


def api_error(response: httpx.Response) -> APIError:
    """The server's own error, or "http_error" with the start of the text when something else answered."""
    status = response.status_code
    error = stated_error(status, response.content)
    if error is None:
        retryable = status in RETRIED_STATUS or status in (502, 504)
        message = f"HTTP {status} from {response.url}: {response.text[:200]}"
        error = APIError(status, "http_error", message, retryable=retryable)
    return error


def stated_error(status: int, body: bytes) -> APIError | None:
    """An error in the shape that the server gives to all of them; None for anything else."""
    try:
        error = _ErrorBody.model_validate_json(body).error
    except ValidationError:
        return None
    return APIError(status, error.code, error.message, error.param, error.retryable, error.details)


def transport_error(error: httpx.RequestError, base_url: str) -> GRMClientError:
    """Say what to do about a request that got no answer."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ConnectionFailed(f"no server at {base_url}; start one with `grm serve`")
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(f"no answer from {base_url} in time; raise timeout_s, or ask for fewer samples or tokens")
    return ConnectionFailed(f"the connection to {base_url} broke: {str(error) or type(error).__name__}")
