"""Fair queue: fair between tenants by cost, and within a tenant by priority, then arrival. Pure.

Start-time fair queueing (Goyal, Vin, Cheng 1996). Each tenant has a virtual start time for its next item: the end of
its last one, or the current virtual time if it had none. The lowest start is served first, and the tenant's start moves
on by the cost of the item. So waiting tenants get equal shares however much they send, a tenant that sends little is
served almost at once, and an idle tenant saves nothing up.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, eq=False, slots=True)
class Ticket(Generic[T]):
    """The place of one item in the queue."""

    item: T
    tenant: str
    rank: int
    """Of its priority; 0 is served first."""
    cost: float


@dataclass(slots=True)
class _TenantQueue(Generic[T]):
    """The waiting items of one tenant."""

    start: float
    """Virtual start time of its next item."""
    tickets: dict[int, OrderedDict[Ticket[T], None]] = field(default_factory=dict)
    """By rank, then in order of arrival."""
    costs: dict[int, float] = field(default_factory=dict)
    """Total by rank."""


class FairQueue(Generic[T]):
    """See the module. An idle tenant takes no memory once the virtual time has passed its end."""

    def __init__(self) -> None:
        self._now = 0.0
        """Virtual time: the start of the item served last."""
        self._tenants: dict[str, _TenantQueue[T]] = {}
        self._ends: dict[str, float] = {}
        """Virtual end times of tenants without waiting items that had more than others."""
        self._waiting: set[Ticket[T]] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, ticket: Ticket[T]) -> bool:
        return ticket in self._waiting

    def push(self, item: T, tenant: str, rank: int, cost: float) -> Ticket[T]:
        """cost: of serving the item; above 0."""
        ticket = Ticket(item, tenant, rank, cost)
        own = self._tenants.get(tenant)
        if own is None:
            own = self._tenants[tenant] = _TenantQueue(max(self._now, self._ends.pop(tenant, 0.0)))
        self._waiting.add(ticket)
        own.tickets.setdefault(rank, OrderedDict())[ticket] = None
        own.costs[rank] = own.costs.get(rank, 0.0) + cost
        return ticket

    def pop(self) -> T:
        """The next item. Raises IndexError."""
        if not self._tenants:
            raise IndexError("the queue is empty")
        first = min(self._tenants.values(), key=lambda tenant: tenant.start)
        rank = min(first.tickets)
        ticket = next(iter(first.tickets[rank]))
        self._now = first.start
        first.start += ticket.cost
        self.remove(ticket)
        return ticket.item

    def remove(self, ticket: Ticket[T]) -> None:
        """Raises KeyError if the ticket does not wait."""
        self._waiting.remove(ticket)
        own = self._tenants[ticket.tenant]
        same_rank = own.tickets[ticket.rank]
        del same_rank[ticket]
        own.costs[ticket.rank] -= ticket.cost
        if same_rank:
            return
        del own.tickets[ticket.rank], own.costs[ticket.rank]
        if not own.tickets:
            del self._tenants[ticket.tenant]
            self._ends[ticket.tenant] = own.start
        if not self._tenants:
            # No tenant is behind, so none is ahead.
            self._now = 0.0
            self._ends.clear()

    @property
    def cost(self) -> float:
        """Of all waiting items."""
        return sum(sum(tenant.costs.values()) for tenant in self._tenants.values())

    def ahead(self, tenant: str, rank: int) -> float:
        """Cost of all items served before a new one if nothing else arrived. Exact up to one item of each tenant."""
        own = self._tenants.get(tenant)
        own_cost = 0.0 if own is None else sum(cost for of, cost in own.costs.items() if of <= rank)
        start = own_cost + (max(self._now, self._ends.get(tenant, 0.0)) if own is None else own.start)
        others = (other for other in self._tenants.values() if other is not own)
        return own_cost + sum(min(sum(other.costs.values()), max(0.0, start - other.start)) for other in others)
