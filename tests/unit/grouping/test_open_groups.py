"""Which group is closed when too many wait."""

import asyncio
from typing import Any

from grm_server.grouping.open_groups import Group, OpenGroups
from grm_server.grouping.types import PendingResponse


def group(tenant: str, key: str, chars: int = 10) -> Group:
    nothing: Any = None
    arrival = PendingResponse(tenant, key, "", chars, nothing, nothing, "", None, 64, 1.0, 1.0, None)
    return Group(arrival, 0.0, 0.0, 1.0, asyncio.get_running_loop().create_future())


async def test_the_oldest_of_the_tenant_that_has_the_most() -> None:
    groups = OpenGroups(max_seats=4, max_chars=1000)
    small, old, new = group("a", "1"), group("b", "2"), group("b", "3")
    for one, seats in ((small, 1), (old, 1), (new, 2)):
        groups.add(one)
        for seat in range(seats):
            groups.seat(one, seat, "text", 0.0)
    assert groups.too_many() is None
    groups.seat(new, 2, "text", 0.0)
    assert groups.too_many() is old
    groups.remove(old)
    assert groups.too_many() is None


async def test_letters_count_too_and_are_given_back() -> None:
    groups = OpenGroups(max_seats=100, max_chars=1000)
    many, long = group("a", "1"), group("b", "2", chars=400)
    for one in (many, long):
        groups.add(one)
    for seat in range(10):
        groups.seat(many, seat, "text", 0.0)
    groups.seat(long, 0, "x" * 500, 0.0)
    assert groups.too_many() is long
    groups.unseat(long, 0)
    assert groups.too_many() is None
    for one in list(groups):
        groups.remove(one)
    assert (len(groups), groups.too_many()) == (0, None)
    assert not groups._chars
    assert not groups._seats
