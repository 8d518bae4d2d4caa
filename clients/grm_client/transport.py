"""Requests, retries and answers as pure functions, without I/O. Shared by both clients.

request_body -> (HTTP) -> retry_delay -> (sleep, retry) | read_outcome -> as_rewards      (streams: see `events`)
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypedDict, Unpack

import httpx
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from grm_client.connection import is_tls_failure, through_proxy, transport_error
from grm_client.errors import APIError
from grm_client.types import Rewards

Query = str | Sequence[Mapping[str, str]]
"""One user turn, or chat messages: {"role": ..., "content": ...}."""

Outcome = httpx.Response | httpx.RequestError
"""Result of one attempt: a response, or why there is none."""


class RewardOptions(TypedDict, total=False):
    """Optional fields of a request. An option that is None or absent takes the server's default. The server refuses
    unknown options."""

    k: int | None
    """Maximum number of samples for each response. More samples give more precise rewards and take more time."""
    stop: Mapping[str, object] | None
    """When to stop before k samples: {"rule": "fixed"} (never), {"rule": "decided", "gamma": 0.05, "target": "best"},
    {"rule": "strict", "delta": 0.05} or {"rule": "precision", "se": 0.4}."""
    deadline_s: float | None
    """Seconds until the server answers with the votes it has. Keep it below the client's `timeout_s`."""
    aggregate: str | None
    """How samples are aggregated: "mean", "winsorised", "vote", "borda"; with a meta RM "meta_hinge" or "meta_top"."""
    k_meta: int | None
    """For "meta_top": how many of the k samples vote. Default: half of them."""
    meta_rm_failure: str | None
    """If the meta RM fails: "error" raises APIError; "vote" falls back to the plain vote, and the answer says so."""
    reading: str | None
    """"sampled": scores as written. "expected": the last score of a sample is the expectation over its tokens."""
    list_size: int | None
    """Maximum number of responses that one sample shows. Longer lists are judged in balanced blocks."""
    task: str | None
    """Tag for similar requests, such as "math". They share the statistics that the server learns for `decided`."""
    temperature: float | None
    """Sampling temperature of principles, critique and scores."""
    seed: int | None
    """Fixes the order of the responses and the seed of every sample."""
    max_critique_tokens: int | None
    """Token budget of one sample for principles and critique together."""
    reference: str | None
    """A known good answer to show to the judge."""
    principles: str | None
    """Criteria to judge by, instead of the judge's own."""
    principles_from: str | None
    """Without `principles`: "sample", the judge writes its own in every sample; or "query", it writes them once for
    all requests with this query."""
    hint: int | None
    """The label, shown to the judge. For collecting training data, never for judging."""
    min_votes: int | None
    """Raise APIError if any response has fewer votes."""
    priority: str | None
    """"high", "normal" or "low": order among the queued requests of the same API key."""
    return_samples: bool | None
    """Also return what the judge wrote."""


REWARDS_PATH = "/v1/rewards"
READY_PATH = "/health/ready"
READY_TIMEOUT_S = 5.0
TIMEOUT_S = 660.0
"""Longer than the server's own limit (600 s, `limits.max_deadline_s`). A late request therefore ends on the server,
with the votes so far or an error that says why. A timeout on the client would waste the samples."""

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
MAX_RETRY_AFTER_S = 60.0

RETRIED_STATUS = frozenset({429, 503})
RETRIED_ERRORS = (httpx.NetworkError, httpx.RemoteProtocolError, httpx.ConnectTimeout)


def request_body(query: Query, responses: Sequence[str], **options: Unpack[RewardOptions]) -> dict[str, Any]:
    """The JSON object to send, without the options that are None."""
    if isinstance(responses, str):
        raise TypeError("responses must be a list of strings, not one string")
    messages = query if isinstance(query, str) else [dict(message) for message in query]
    fields = {name: _json_value(value) for name, value in options.items() if value is not None}
    return {"query": messages, "responses": list(responses), **fields}


def _json_value(value: object) -> object:
    """Convert any mapping to a dict, which `json` can encode."""
    return dict(value) if isinstance(value, Mapping) else value


def retry_delay(attempt: int, outcome: Outcome, rng: random.Random) -> float | None:
    """Seconds to wait before the next attempt; None if a retry would not help. `attempt` counts from 0.

    We retry failed connections, 429 and 503. Retrying a POST is safe here: scoring changes nothing on the server that a
    client relies on, so a request that runs twice only costs time. With a seed, both runs give the same result. When
    the server groups single samples, it recognises a sample that is sent again.
    We do not retry 502 and 504: by then the server has drawn samples or used up the deadline, so the caller should
    decide whether to pay again.
    """
    if isinstance(outcome, httpx.Response):
        if outcome.status_code not in RETRIED_STATUS:
            return None
    elif not isinstance(outcome, RETRIED_ERRORS) or is_tls_failure(outcome):
        return None
    # Jitter on top of Retry-After too: clients that were refused together must not return together.
    # The exponent is bounded because 2.0 ** 1024 overflows, and max_retries may be huge.
    jitter = rng.uniform(0.0, min(FIRST_BACKOFF_S * 2.0 ** min(attempt, 10), MAX_BACKOFF_S))
    return _retry_after_s(outcome) + jitter


def _retry_after_s(outcome: Outcome) -> float:
    """The Retry-After header in seconds, at most `MAX_RETRY_AFTER_S`; 0 unless it is a whole number of seconds."""
    value = outcome.headers.get("retry-after", "") if isinstance(outcome, httpx.Response) else ""
    return min(float(value), MAX_RETRY_AFTER_S) if value.isascii() and value.isdigit() else 0.0


def read_outcome(outcome: Outcome, base_url: str) -> dict[str, Any]:
    """The answer's JSON object. Raises the error of an outcome that has none."""
    if isinstance(outcome, httpx.RequestError):
        raise transport_error(outcome, base_url) from outcome
    if outcome.status_code != 200:
        raise api_error(outcome)
    return json_object(outcome.content)


def json_object(text: bytes) -> dict[str, Any]:
    """Parse a JSON object. Raises APIError "bad_answer" for anything else."""
    try:
        value = strict_json(text)
    except ValueError as error:
        bad_answer(f"not JSON, {error}: {excerpt(text)}")
    if not isinstance(value, dict):
        bad_answer(f"not a JSON object: {excerpt(text)}")
    return value


def excerpt(text: bytes) -> str:
    """The first 200 characters of a body, for error messages."""
    return text[:800].decode(errors="replace")[:200]


def strict_json(text: bytes) -> object:
    """Parse JSON that can be encoded again. Raises ValueError for bad UTF-8, lone surrogates, NaN and infinity."""
    value: object = from_json(text, allow_inf_nan=False)
    # 1e999 is valid JSON and parses to infinity; encoding it raises.
    json.dumps(value, allow_nan=False)
    return value


def as_rewards(answer: Mapping[str, Any]) -> Rewards:
    """Validate an answer. Raises APIError "bad_answer" and names the first invalid field."""
    try:
        return Rewards.model_validate(answer)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        bad_answer(f"{'.'.join(map(str, first['loc']))}: {first['msg']}")


def bad_answer(reason: str) -> NoReturn:
    raise APIError(200, "bad_answer", f"the server's answer could not be read: {reason}")


class _ErrorDetail(BaseModel):
    code: str
    message: str
    param: str | None = None
    retryable: bool = False
    details: dict[str, Any] = Field(default_factory=dict)


class _ErrorBody(BaseModel):
    error: _ErrorDetail


def api_error(response: httpx.Response) -> APIError:
    """The server's error, or "http_error" with an excerpt of the body if it came from something else, e.g. a proxy."""
    status = response.status_code
    error = server_error(status, response.content)
    if error is None:
        retryable = status in RETRIED_STATUS or status in (502, 504)
        message = f"HTTP {status} from {response.url}{through_proxy(response.url)}: {response.text[:200]}"
        error = APIError(status, "http_error", message, retryable=retryable)
    return error


def server_error(status: int, body: bytes) -> APIError | None:
    """Parse the server's error body; None for any other body."""
    try:
        error = _ErrorBody.model_validate_json(body).error
    except ValidationError:
        return None
    return APIError(status, error.code, error.message, error.param, error.retryable, error.details)
