"""What comes alone, and what it gets in the end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from grm_server.grm.types import Aggregate
from grm_server.grouping.closing_policy import Close
from grm_server.pipeline.types import ScoreRequest


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that the trainer gave a response in a group that it named."""

    group: str
    attempt: int
    index: int
    tenant: str = ""
    """Whose trainer: names of groups are its own."""


@dataclass(frozen=True, slots=True)
class PendingResponse:
    """One response, how it is to be judged, and how long it may wait for others."""

    tenant: str
    """Whose it is."""
    key: str
    """Those with the same key are judged together: it says prompt, options, and the trainer's group if it has one."""
    response: str
    prompt_chars: int
    """Of what all of its group share."""
    ask: Callable[[tuple[str, ...]], ScoreRequest]
    """The request that judges these responses."""
    charge: Callable[[int], None]
    """Takes so many samples from what the tenant may use up."""
    task: str
    n: int | None
    max_responses: int
    idle_s: float
    window_s: float
    timeout_s: float | None
    slot: Slot | None = None


@dataclass(frozen=True, slots=True)
class GroupedReward:
    """What a response gets of its group's judgement."""

    judgement_id: str
    index: int
    """Which of the judged responses it is."""
    rewards: tuple[float, ...]
    """(n,), of all responses that were judged."""
    se: float
    aggregate: Aggregate
    k_used: int
    closed: Close
    members: int
    """Of the group when it closed, duplicates included. Fewer than the trainer's n: a partial group."""
