"""What the grouper takes and returns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grm_server.grm.types import Aggregate
from grm_server.grouping.closing_policy import Close
from grm_server.pipeline.types import ScoreRequest

if TYPE_CHECKING:
    from grm_server.grouping.open_groups import Group


@dataclass(frozen=True, slots=True)
class Slot:
    """A response's position in a group that the trainer named."""

    group: str
    attempt: int
    index: int
    tenant: str = ""
    """Group names are unique per tenant only."""


@dataclass(frozen=True, slots=True)
class PendingResponse:
    """One response, how to judge it, and how long it may wait for the rest of its group."""

    tenant: str
    key: str
    """Responses with the same key are judged together. Covers the prompt, the options and the trainer's group name."""
    response: str
    prompt_chars: int
    """Characters of everything that the group's responses share."""
    ask: Callable[[tuple[str, ...]], ScoreRequest]
    """Builds the request that judges these responses."""
    charge: Callable[[int], None]
    """Charges so many samples to the tenant's quota; a negative number gives them back."""
    k: int
    list_size: int
    """A group draws k samples for each block of so many distinct responses."""
    task: str
    """The client's tag."""
    n: int | None
    """Expected group size; None if unknown."""
    max_responses: int
    idle_s: float
    window_s: float
    timeout_s: float | None
    """Of the client; None if it has none."""
    slot: Slot | None = None


@dataclass(frozen=True, slots=True)
class GroupedReward:
    """One response's part of its group's judgement."""

    judgement_id: str
    index: int
    """Of the response among the judged ones."""
    rewards: tuple[float, ...]
    """(n,), of all judged responses."""
    se: float
    aggregate: Aggregate
    k_used: int
    closed: Close
    members: int
    """Of the group when it closed, including duplicates. Less than the trainer's n: a partial group."""


@dataclass(slots=True, eq=False)
class Place:
    """A response's place in a group, or the reward that it has already."""

    pending: PendingResponse
    member: object
    group: Group | None = None
    """None once it has left."""
    reward: GroupedReward | None = None


def blocks(responses: int, list_size: int) -> int:
    """Samples in each round of a group with so many distinct responses."""
    return -(-responses // list_size)


def samples_of(pending: Sequence[PendingResponse]) -> int:
    """The most samples that the responses of one POST may draw, in groups of their own."""
    by_key: dict[str, list[PendingResponse]] = {}
    for one in pending:
        by_key.setdefault(one.key, []).append(one)
    samples = 0
    for members in by_key.values():
        first, distinct = members[0], len({one.response for one in members})
        # A group closes at n members, duplicates included.
        count = distinct if first.n is None else len(members)
        size = min(count, first.max_responses, first.n or count)
        whole, rest = divmod(count, size)
        needed = whole * blocks(size, first.list_size) + blocks(rest, first.list_size)
        samples += first.k * min(distinct, needed)
    return samples
