"""Groups that wait for their other members, and how much each tenant's hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from grm_server.errors import PromptTooLong
from grm_server.grouping.types import GroupedReward, PendingResponse


@dataclass(eq=False, slots=True)
class Group:
    """Responses to one prompt."""

    first: PendingResponse
    opened_s: float
    last_s: float
    gather_s: float
    answer: asyncio.Future[dict[str, GroupedReward | PromptTooLong]]
    n: int | None = None
    seats: dict[object, tuple[str, float]] = field(default_factory=dict)
    """A slot, or something unique -> response, arrived_s."""
    responses: Counter[str] = field(default_factory=Counter)
    waiters: int = 0
    """Callers that are still there."""
    timer: asyncio.TimerHandle | None = None


class OpenGroups:
    """By key, the one that waits the longest first."""

    def __init__(self, max_seats: int, max_chars: int) -> None:
        self._max_seats = max_seats
        self._max_chars = max_chars
        self._groups: dict[str, Group] = {}
        self._seats: Counter[str] = Counter()
        self._chars: Counter[str] = Counter()
        """Of each tenant's responses and their prompts."""

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[Group]:
        """A copy: groups may be removed meanwhile."""
        return iter(list(self._groups.values()))

    def get(self, key: str) -> Group | None:
        return self._groups.get(key)

    def add(self, group: Group) -> None:
        self._groups[group.first.key] = group

    def seat(self, group: Group, seat: object, response: str, now_s: float) -> None:
        group.seats[seat] = (response, now_s)
        group.responses[response] += 1
        group.last_s = now_s
        self._count(group, 1, len(response))

    def unseat(self, group: Group, seat: object) -> None:
        response, _ = group.seats.pop(seat)
        group.responses -= Counter([response])
        self._count(group, -1, -len(response))

    def remove(self, group: Group) -> None:
        """It is not open any more."""
        if group.timer is not None:
            group.timer.cancel()
        del self._groups[group.first.key]
        chars = sum(len(response) for response, _ in group.seats.values())
        self._count(group, -len(group.seats), -chars)

    def too_many(self) -> Group | None:
        """The one to close where there is no room for all: the oldest of the tenant whose groups hold the most, since
        nobody's should be closed before their time because of another."""
        if self._seats.total() <= self._max_seats and self._chars.total() <= self._max_chars:
            return None
        largest = max(self._chars, key=self._share)
        return next(group for group in self._groups.values() if group.first.tenant == largest)

    def _share(self, tenant: str) -> float:
        return max(self._seats[tenant] / self._max_seats, self._chars[tenant] / self._max_chars)

    def _count(self, group: Group, seats: int, chars: int) -> None:
        tenant = group.first.tenant
        # Each caller holds the prompt, as it came.
        chars += seats * group.first.prompt_chars
        for counter, change in ((self._seats, seats), (self._chars, chars)):
            counter[tenant] += change
            if not counter[tenant]:
                del counter[tenant]
