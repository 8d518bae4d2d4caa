"""When a group of single responses stops waiting for more, and in which order its responses are judged. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from grm_server.caching.hashing import fingerprint

SAFE = 0.9
"""Share of a client's timeout within which judging should be done, by the recent duration of judging."""
LAST = 0.95
"""Share of a client's timeout after which the votes so far are returned."""


class Close(StrEnum):
    """Why a group was closed."""

    FULL = "full"
    """All expected responses have arrived, or as many as one request may hold."""
    IDLE = "idle"
    """No response arrived for a while."""
    DEADLINE = "deadline"
    """The first response cannot wait any longer."""
    PRESSURE = "pressure"
    """Too many responses wait, and this is the oldest group of the tenant that holds the most."""
    DRAIN = "drain"
    """The server is shutting down."""


@dataclass(frozen=True, slots=True)
class GroupState:
    """An open group, as the policy sees it. Times are seconds on one clock."""

    members: int
    n: int | None
    """Expected members; None if the trainer did not say."""
    distinct: int
    """Distinct responses."""
    max_responses: int
    """Distinct responses that one request may hold."""
    opened_s: float
    last_s: float
    """Arrival of the newest member."""
    idle_s: float
    """The group closes this long after its newest member."""
    max_wait_s: float
    """The first member waits no longer than this."""


def closing(group: GroupState) -> tuple[float, Close]:
    """When the group closes if no other response arrives, and why."""
    if group.distinct >= group.max_responses or (group.n is not None and group.members >= group.n):
        return group.last_s, Close.FULL
    idle_s, deadline_s = group.last_s + group.idle_s, group.opened_s + group.max_wait_s
    return (idle_s, Close.IDLE) if idle_s < deadline_s else (deadline_s, Close.DEADLINE)


def max_wait_s(window_s: float, timeout_s: float | None, judging_s: float) -> float:
    """Seconds that a group's first member may wait and still be judged before its client times out.

    timeout_s: the client's; None if it has none. judging_s: expected duration of judging.
    """
    return window_s if timeout_s is None else min(window_s, max(0.0, SAFE * timeout_s - judging_s))


def judging_deadline_s(timeout_s: float, waited_s: float) -> float:
    """Seconds that judging may take after the first member has waited; at least 1, even if the client times out."""
    return max(1.0, LAST * timeout_s - waited_s)


def p95_s(durations_s: Sequence[float]) -> float:
    """95th percentile of recent durations; 0 without any."""
    return sorted(durations_s)[len(durations_s) * 95 // 100] if durations_s else 0.0


def judged_order(responses: Iterable[str]) -> tuple[str, ...]:
    """Each distinct response once, in an order that does not depend on arrival."""
    return tuple(sorted(set(responses), key=lambda text: (fingerprint(text), text)))
