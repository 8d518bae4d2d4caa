"""What the OpenAPI document says beside the types: where an answer leads, and that it may come as events."""

from __future__ import annotations

from typing import Any

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
