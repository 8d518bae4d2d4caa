"""Requests, retries and answers as pure functions, without I/O. Shared by both clients.

request_body -> (HTTP) -> retry_delay -> (sleep, retry) | read_outcome -> as_rewards      (streams: see `events`)
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar, Unpack
from urllib.parse import quote

import httpx
from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from grm_client.connection import is_tls_failure, through_proxy, transport_error
from grm_client.errors import APIError, InvalidRequest
from grm_client.options import RewardOptions
from grm_client.plain import plain, unwrapped
from grm_client.types import Answer, Rewards

Query = str | Sequence[Mapping[str, str]]
"""One user turn, or chat messages: {"role": ..., "content": ...}."""

Outcome = httpx.Response | httpx.RequestError
"""Result of one attempt: a response, or why there is none."""

DEFAULT_URL = "http://127.0.0.1:8000"
JSON = {"content-type": "application/json"}
REWARDS_PATH = "/v1/rewards"
READY_PATH = "/health/ready"
MODELS_PATH = "/v1/models"
READY_TIMEOUT_S = 5.0
TIMEOUT_S = 660.0
"""Longer than the server's own limit (600 s, `limits.max_deadline_s`). A late request therefore ends on the server,
with the votes so far or an error that says why. A timeout on the client would waste the samples."""

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
MAX_RETRY_AFTER_S = 60.0

RETRIED_STATUS = frozenset({429, 503})
PROXY_STATUS = frozenset({502, 504})
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


def judgement_path(judgement_id: str) -> str:
    """Percent-encoded, so an id with a slash or a question mark names no other route."""
    return f"/v1/judgements/{quote(judgement_id, safe='')}"


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body as JSON. Numbers and arrays of numpy and the like become plain ones.

    Raises InvalidRequest for what JSON in UTF-8 cannot hold: half a surrogate pair, NaN, other objects.
    """
    try:
        text = json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_plain_or_error)
        return text.encode()
    except UnicodeEncodeError as error:
        # The error's own text quotes the request.
        half = ord(error.object[error.start])
        raise InvalidRequest(
            f"the request holds half of a surrogate pair (U+{half:04X}), which is not a character; "
            'decode the text with errors="replace"'
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request cannot be sent as JSON: {error}") from None


def _plain_or_error(value: object) -> object:
    if isinstance(value, bytes) or unwrapped(value) is not value:
        return plain(value)
    raise TypeError(f"a {type(value).__name__} is not JSON")


def retry_delay(attempt: int, outcome: Outcome, rng: random.Random) -> float | None:
    """Seconds to wait before the next attempt; None if a retry would not help. `attempt` counts from 0.

    We retry failed connections, 429, 503, and a 502 or 504 of a proxy. Retrying a POST is safe here:
    scoring changes nothing on the server that a client relies on, so a request that runs twice only costs time. With a
    seed, both runs give the same result. When the server groups single samples, it recognises a sample that is sent
    again.
    We do not retry the server's own 502 and 504, which have its error body: by then it has drawn samples or used up the
    deadline, so the caller should decide whether to pay again. A proxy's only say that it did not reach the server.
    """
    if isinstance(outcome, httpx.Response):
        status = outcome.status_code
        of_proxy = status in PROXY_STATUS and server_error(status, outcome.content) is None
        if status not in RETRIED_STATUS and not of_proxy:
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
    """See `typed`."""
    return typed(Rewards, answer)


A = TypeVar("A", bound=Answer)


def typed(kind: type[A], answer: Mapping[str, Any]) -> A:
    """Validate an answer. Raises APIError "bad_answer" and names the first invalid field."""
    try:
        return kind.model_validate(answer)
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
        retryable = status in RETRIED_STATUS | PROXY_STATUS
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
