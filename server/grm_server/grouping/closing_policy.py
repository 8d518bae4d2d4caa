"""When single responses to one prompt have waited for one another long enough, and how they are put in order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from grm_server.caching.hashing import fingerprint

SAFE = 0.9
"""Share of a client's timeout that is used up before judging must be done, by what judging took of late."""
LAST = 0.95
"""Share of a client's timeout after which votes are returned as they are."""


class Close(StrEnum):
    """Why a group is not waited for any longer."""

    FULL = "full"
    """All that are expected are there, or as many as one request may hold."""
    IDLE = "idle"
    """Nobody came for a while."""
    DEADLINE = "deadline"
    """The first one cannot wait any longer."""
    PRESSURE = "pressure"
    """Too many wait, and of those of the tenant that has the most this group waits the longest."""
    DRAIN = "drain"
    """The server is about to end."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """What there is of a group. Times are seconds on one clock."""

    members: int
    n: int | None
    """Members that are expected; None if nobody said."""
    distinct: int
    max_responses: int
    """Distinct responses that one request may hold."""
    opened_s: float
    last_s: float
    """When the last one came."""
    idle_s: float
    gather_s: float
    """How long the first one may wait."""


def closing(group: GroupState) -> tuple[float, Close]:
    """When the group closes if nobody else comes, and why."""
    if group.distinct >= group.max_responses or (group.n is not None and group.members >= group.n):
        return group.last_s, Close.FULL
    idle_s, deadline_s = group.last_s + group.idle_s, group.opened_s + group.gather_s
    return (idle_s, Close.IDLE) if idle_s < deadline_s else (deadline_s, Close.DEADLINE)


def gather_s(window_s: float, timeout_s: float | None, judging_s: float) -> float:
    """Seconds that a first member may wait, so that it is judged before its client gives up.

    timeout_s: the client's; None if it has none. judging_s: what judging takes.
    """
    return window_s if timeout_s is None else min(window_s, max(0.0, SAFE * timeout_s - judging_s))


def left_s(timeout_s: float, waited_s: float) -> float:
    """Seconds that judging may take, after the first member has waited; at least one, for there is nothing to lose."""
    return max(1.0, LAST * timeout_s - waited_s)


def usual_s(took_s: Sequence[float]) -> float:
    """The 95th percentile of what judging took of late; 0 before there was any."""
    return sorted(took_s)[len(took_s) * 95 // 100] if took_s else 0.0


def judged_order(responses: Iterable[str]) -> tuple[str, ...]:
    """Each response once, in an order that does not depend on which came first."""
    return tuple(sorted(set(responses), key=lambda text: (fingerprint(text), text)))
