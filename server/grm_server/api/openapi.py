"""What the OpenAPI document says beside the types: where an answer leads, what comes as events, how a key is sent."""

from __future__ import annotations

from typing import Any

from fastapi import Security
from fastapi.params import Depends
from fastapi.security import APIKeyHeader, HTTPBearer

Responses = dict[int | str, dict[str, Any]]


def kept_at(pointer: str) -> Responses:
    """Its judgement can be read: the id stands at this JSON pointer of the answer."""
    link = {
        "operationRef": "#/paths/~1v1~1judgements~1{judgement_id}/get",
        "parameters": {"judgement_id": f"$response.body#{pointer}"},
        "description": "Why the rewards came out as they did.",
    }
    return {200: {"links": {"judgement": link}}}


def asked_again_with(pointer: str) -> Responses:
    """The request that stands at this JSON pointer of the answer judges the same again."""
    link = {
        "operationRef": "#/paths/~1v1~1rewards/post",
        "requestBody": f"$response.body#{pointer}",
        "description": "The same request again.",
    }
    return {200: {"links": {"again": link}}}


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
"""Of a router whose routes need a key, either way: gives the page of the document a place to put one. They are looked
at before the routes are (`auth`), so nothing is checked here."""
