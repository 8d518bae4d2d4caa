"""What the grouper takes and returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from grm_server.grm.types import Aggregate
from grm_server.grouping.closing_policy import Close
from grm_server.pipeline.types import ScoreRequest


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
    """Charges so many samples to the tenant's quota."""
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
