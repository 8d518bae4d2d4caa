"""Flat lists, as trainers have them, into groups that are judged together, and rewards back into the flat order. Pure.

A judge compares the answers to one prompt best in one request. Trainers hand over all samples of a step in one list, in
which the members of a group may stand together or apart, and of which this process may hold a part.

prompts, completions -> into_groups -> (judged) -> in_flat_order
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grm_client.transport import Query

Chat = str | Sequence[Mapping[str, Any]]
"""Text, or chat messages, whose content may be text, a list of parts or None."""

MAX_RESPONSES = 64
"""What a server takes in one request unless it is set otherwise (`limits.max_responses`)."""

_ROLES = {"system": "system", "developer": "system", "assistant": "assistant"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """The answers to one prompt."""

    query: Query
    responses: tuple[str, ...]
    """(n,), each once: the same text twice would get two noisy rewards, and a trainer would learn from the noise."""
    places: tuple[tuple[int, ...], ...]
    """(n,), where in the flat lists each response stands."""


def into_groups(
    prompts: Sequence[Chat],
    completions: Sequence[Chat],
    keys: Sequence[Hashable] | None = None,
    *,
    most: int = MAX_RESPONSES,
) -> tuple[Group, ...]:
    """The groups, in the order in which their first members stand.

    prompts, completions: (N,), one of each for every sample.
    keys: (N,), the trainer's name for each sample's group. Without them, equal prompts make a group.
    most: different responses of a group; more of them make several groups of about the same size.
    """
    members: dict[Hashable, dict[str, list[int]]] = {}
    queries: dict[Hashable, Query] = {}
    for place, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        query = as_query(prompt)
        # Samples with one key and different prompts, as after different turns, cannot share a request.
        key = (keys[place] if keys is not None else None, json.dumps(query))
        queries[key] = query
        members.setdefault(key, {}).setdefault(as_text(completion), []).append(place)
    return tuple(
        Group(queries[key], tuple(text for text, _ in part), tuple(tuple(places) for _, places in part))
        for key, responses in members.items()
        for part in _parts(list(responses.items()), most)
    )


def _parts(items: list[T], most: int) -> list[list[T]]:
    """As few parts as possible, as equal as possible: a part of one would be judged with nothing beside it."""
    count = -(-len(items) // most)
    return [items[len(items) * i // count : len(items) * (i + 1) // count] for i in range(count)]


def in_flat_order(groups: Sequence[Group], values: Sequence[Sequence[T] | None]) -> list[T | None]:
    """(N,), the value of every sample.

    values: one for each response of each group; None for a group that has none, whose samples get None.
    """
    flat: list[T | None] = [None] * sum(len(places) for group in groups for places in group.places)
    for group, of_responses in zip(groups, values, strict=True):
        for places, value in zip(group.places, of_responses or (), strict=of_responses is not None):
            for place in places:
                flat[place] = value
    return flat


def as_query(prompt: Chat) -> Query:
    """A prompt in the form that the server takes: text, or messages of a system, a user and an assistant. Any other
    role, such as a tool, speaks to the model as a user does."""
    if isinstance(prompt, str):
        return prompt
    return [{"role": _ROLES.get(str(m.get("role")), "user"), "content": _content(m)} for m in prompt]


def as_text(completion: Chat) -> str:
    """What the policy wrote. Several messages, as after tool calls, are one text."""
    return completion if isinstance(completion, str) else "\n\n".join(map(_content, completion))


def _content(message: Mapping[str, Any]) -> str:
    """The text of a message. Of what is no text there is only the mention that it was there."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(str(part.get("text", f"[{part.get('type')}]")) for part in content)
