"""The parts of the OpenAPI document that types cannot express: errors, links, events and API keys."""

from __future__ import annotations

from typing import Any

from fastapi import Security
from fastapi.params import Depends
from fastapi.security import APIKeyHeader, HTTPBearer

from grm_server.api.schemas import ErrorResponse

Responses = dict[int | str, dict[str, Any]]

ERRORS: Responses = {
    status: {"model": ErrorResponse, "description": description}
    for status, description in (
        (400, "The prompt does not fit the model's context, or cannot be encoded."),
        (401, "The API key is missing or not valid."),
        (408, "The body did not arrive in time."),
        (413, "The body is too large."),
        (415, "The Content-Type is not JSON, or the Content-Encoding is neither `gzip` nor `deflate`."),
        (421, "The Host header names another server."),
        (422, "A field is wrong, unknown or over a limit; `param` names it."),
        (
            429,
            "The queue for the engine is full, or the request would wait beyond its deadline, or the API key has used "
            "up its requests or samples. No samples were generated. `Retry-After` says when to retry.",
        ),
        (502, "Fewer than `min_votes` samples gave scores."),
        (504, "At the deadline a response had fewer than `min_votes` scores."),
        (503, "The engine or the meta RM is dead, or the server is shutting down. See `Retry-After`."),
    )
}
SLOT_ERRORS: Responses = {
    409: {"model": ErrorResponse, "description": "The slot holds another response, or its attempt was superseded."}
}
"""For routes with slots."""
BODY_ERRORS: Responses = {status: ERRORS[status] for status in (401, 408, 413, 415, 421, 422, 429)}
"""For routes that read a body and judge nothing."""

EVENTS = {
    "text/event-stream": {
        "schema": {
            "type": "string",
            "description": "Events `started`, `sample`, `wave` and `rewards`, or `error`; the data of each is JSON.",
        }
    }
}

KEY: list[Depends] = [
    Security(HTTPBearer(scheme_name="Bearer", auto_error=False)),
    Security(APIKeyHeader(name="X-API-Key", scheme_name="X-API-Key", auto_error=False)),
]
"""Dependencies of routers whose routes need a key, so that /docs has a field for it. They check nothing:
`AuthMiddleware` has done so before."""


def judgement_link(pointer: str) -> Responses:
    """Link to the judgement, whose id is at this JSON pointer of the response."""
    link = {
        "operationRef": "#/paths/~1v1~1judgements~1{judgement_id}/get",
        "parameters": {"judgement_id": f"$response.body#{pointer}"},
        "description": "Why the rewards came out as they did.",
    }
    return {200: {"links": {"judgement": link}}}


def judge_again_link(pointer: str) -> Responses:
    """Link to POST /v1/rewards with the request at this JSON pointer of the response."""
    link = {
        "operationRef": "#/paths/~1v1~1rewards/post",
        "requestBody": f"$response.body#{pointer}",
        "description": "The same request again.",
    }
    return {200: {"links": {"again": link}}}
