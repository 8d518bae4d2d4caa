"""Who is next: fair between tenants by what they are given, and within a tenant by priority, then arrival. Pure.

Start-time fair queueing (Goyal, Vin, Cheng 1996). A tenant's next item has a virtual start: where the tenant's last one
ended, or now if it had none. The lowest goes first and moves its tenant on by its cost. So tenants that wait get equal
shares however much they ask for, one that asks for little is served almost at once, and nothing is kept free for one
that asks for nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, eq=False, slots=True)
class Place(Generic[T]):
    """Where something waits."""

    item: T
    tenant: str
    rank: int
    """Of its priority, 0 first."""
    cost: float


@dataclass(slots=True)
class _Line(Generic[T]):
    """What waits of one tenant."""

    start: float
    """Virtual, of its next item."""
    places: dict[int, OrderedDict[Place[T], None]] = field(default_factory=dict)
    """By rank, then by arrival."""
    costs: dict[int, float] = field(default_factory=dict)
    """By rank, of all that wait."""


class FairQueue(Generic[T]):
    """See the module. A tenant without anything that waits takes no room, once its turn has passed."""

    def __init__(self) -> None:
        self._now = 0.0
        """Virtual: the start of the last one that was served."""
        self._lines: dict[str, _Line[T]] = {}
        self._ends: dict[str, float] = {}
        """Of tenants of whom nothing waits, and who have had more than others."""
        self._waiting: set[Place[T]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, place: Place[T]) -> bool:
        return place in self._waiting

    def push(self, item: T, tenant: str, rank: int, cost: float) -> Place[T]:
        """cost: of what it will be given; above 0."""
        place = Place(item, tenant, rank, cost)
        line = self._lines.get(tenant)
        if line is None:
            line = self._lines[tenant] = _Line(max(self._now, self._ends.pop(tenant, 0.0)))
        self._waiting.add(place)
        line.places.setdefault(rank, OrderedDict())[place] = None
        line.costs[rank] = line.costs.get(rank, 0.0) + cost
        return place

    def pop(self) -> T:
        """The next one. Raises IndexError."""
        if not self._lines:
            raise IndexError("nothing waits")
        line = min(self._lines.values(), key=lambda line: line.start)
        rank = min(line.places)
        place = next(iter(line.places[rank]))
        self._now = line.start
        line.start += place.cost
        self.remove(place)
        return place.item

    def remove(self, place: Place[T]) -> None:
        """It does not wait any longer. Raises KeyError."""
        self._waiting.remove(place)
        line = self._lines[place.tenant]
        of_rank = line.places[place.rank]
        del of_rank[place]
        line.costs[place.rank] -= place.cost
        if of_rank:
            return
        del line.places[place.rank], line.costs[place.rank]
        if not line.places:
            del self._lines[place.tenant]
            self._ends[place.tenant] = line.start
        if not self._lines:
            # Nobody is behind, so nobody is ahead.
            self._now = 0.0
            self._ends.clear()

    @property
    def cost(self) -> float:
        """Of all that wait."""
        return sum(sum(line.costs.values()) for line in self._lines.values())

    def ahead(self, tenant: str, rank: int) -> float:
        """The cost of what would be served before a new item, if nothing else came: up to one item of each tenant."""
        line = self._lines.get(tenant)
        own = 0.0 if line is None else sum(cost for of, cost in line.costs.items() if of <= rank)
        start = own + (max(self._now, self._ends.get(tenant, 0.0)) if line is None else line.start)
        others = (other for other in self._lines.values() if other is not line)
        return own + sum(min(sum(other.costs.values()), max(0.0, start - other.start)) for other in others)
