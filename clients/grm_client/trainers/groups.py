"""Turn a trainer's flat lists into groups that are judged together, and the rewards back into flat lists. Pure.

A judge compares the responses to one prompt best in one request. Trainers pass all samples of a step in one list. The
members of a group may stand together or apart in it, and this process may hold only some of them.

    prompts, completions -> into_groups -> (judged) -> in_flat_order
"""

from __future__ import annotations

import json
from collections.abc import Container, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from grm_client.errors import InvalidRequest
from grm_client.plain import unwrapped
from grm_client.transport import Query
from grm_client.turns import as_messages, as_response

Chat = str | Sequence[Mapping[str, Any]]
"""Text, or chat messages. The content of a message may be text, a list of parts or None."""

MAX_RESPONSES = 64
"""The server's default limit for one request (`limits.max_responses`)."""

UNREADABLE = (TypeError, ValueError, AttributeError)
"""What `as_query` and `as_text` raise for values of other types."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Group:
    """The distinct responses to one prompt."""

    query: Query
    responses: tuple[str, ...]
    """(n,), without duplicates: the same text twice would get two noisy rewards, and the policy would learn from the
    noise."""
    positions: tuple[tuple[int, ...], ...]
    """(n,), indices of each response in the flat lists."""


def into_groups(
    prompts: Sequence[Chat],
    completions: Sequence[Chat],
    keys: Sequence[Hashable] | None = None,
    *,
    skip: Container[int] = (),
    max_responses: int = MAX_RESPONSES,
) -> tuple[Group, ...]:
    """Group the samples, in the order of each group's first member.

    prompts, completions: (N,), one of each for every sample.
    keys: (N,), the trainer's name of each sample's group. Without keys, samples with equal prompts form a group.
    skip: positions to leave out, see `unreadable`.
    max_responses: maximum number of distinct responses in a group. A larger group is split into groups of nearly equal
        size.
    """
    members: dict[Hashable, dict[str, list[int]]] = {}
    queries: dict[Hashable, Query] = {}
    for position, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        if position in skip:
            continue
        query = read_prompt(prompt)
        # Samples with the same key but different prompts, e.g. after different turns, cannot share a request.
        key = (keys[position] if keys is not None else None, json.dumps(query))
        queries[key] = query
        members.setdefault(key, {}).setdefault(read_completion(completion), []).append(position)
    return tuple(
        Group(queries[key], tuple(text for text, _ in part), tuple(tuple(positions) for _, positions in part))
        for key, responses in members.items()
        for part in _split_evenly(list(responses.items()), max_responses)
    )


def unreadable(
    prompts: Sequence[Chat], completions: Sequence[Chat], keys: Sequence[Hashable] | None = None
) -> dict[int, InvalidRequest]:
    """Position -> error of each sample whose prompt, completion or key cannot be read, such as None. It costs its own
    reward. See `into_groups` for the arguments."""
    errors: dict[int, InvalidRequest] = {}
    for position, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        try:
            read_prompt(prompt)
            read_completion(completion)
            hash(None if keys is None else keys[position])
        except InvalidRequest as error:
            errors[position] = error
        except TypeError as error:
            errors[position] = InvalidRequest(f"the sample's key cannot be used: {error}")
    return errors


def read_prompt(prompt: Chat) -> Query:
    """`as_query` of text, bytes, messages, or an array of messages. Raises InvalidRequest for anything else."""
    try:
        return as_query(_chat(prompt))
    except UNREADABLE as error:
        raise InvalidRequest(f"a prompt must be text or messages, not {type(prompt).__name__}: {error}") from None


def read_completion(completion: Chat) -> str:
    """`as_text` of the same. Raises InvalidRequest as `read_prompt`."""
    try:
        return as_text(_chat(completion))
    except UNREADABLE as error:
        raise InvalidRequest(f"a response must be text or messages, not {type(completion).__name__}: {error}") from None


def _chat(value: Any) -> Any:
    # Only the outermost container: the parts of a message may be large images.
    return value.decode() if isinstance(value, bytes | bytearray) else unwrapped(value)


def _split_evenly(items: list[T], max_size: int) -> list[list[T]]:
    """As few parts as possible, of nearly equal size: a part of one response would have nothing to compare with."""
    count = -(-len(items) // max_size)
    return [items[len(items) * i // count : len(items) * (i + 1) // count] for i in range(count)]


def in_flat_order(groups: Sequence[Group], values: Sequence[Sequence[T] | None], skipped: int = 0) -> list[T | None]:
    """(N,), the value of every sample.

    skipped: number of samples that are in no group; they get None.

    values: for each group one value per response, or None if the group failed; its samples then get None.
    """
    flat: list[T | None] = [None] * (skipped + sum(len(positions) for group in groups for positions in group.positions))
    for group, group_values in zip(groups, values, strict=True):
        for positions, value in zip(group.positions, group_values or (), strict=group_values is not None):
            for position in positions:
                flat[position] = value
    return flat


def as_query(prompt: Chat) -> Query:
    """A prompt as the server accepts it: text, or messages that only have a role and a text. See `as_messages`."""
    return prompt if isinstance(prompt, str) else as_messages(prompt)


def as_text(completion: Chat) -> str:
    """The policy's output. Several messages, as after tool calls, are joined into one text. See `as_response`."""
    return completion if isinstance(completion, str) else as_response(completion)
