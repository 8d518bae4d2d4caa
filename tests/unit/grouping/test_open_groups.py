"""Which group is closed when the limits are exceeded."""

import asyncio
from typing import Any

from grm_server.grouping.open_groups import Group, OpenGroups
from grm_server.grouping.types import PendingResponse


def group(tenant: str, key: str, chars: int = 10) -> Group:
    nothing: Any = None
    first = PendingResponse(tenant, key, "", chars, nothing, nothing, 1, 8, "", None, 64, 1.0, 1.0, None)
    return Group(first, 0.0, 0.0, 1.0, asyncio.get_running_loop().create_future())


async def test_the_oldest_group_of_the_tenant_that_holds_the_most() -> None:
    groups = OpenGroups(max_members=4, max_chars=1000)
    small, old, new = group("a", "1"), group("b", "2"), group("b", "3")
    for one, count in ((small, 1), (old, 1), (new, 2)):
        groups.add(one)
        for member in range(count):
            groups.add_member(one, member, "text", 0.0)
    assert groups.excess() is None
    groups.add_member(new, 2, "text", 0.0)
    assert groups.excess() is old
    groups.remove(old)
    assert groups.excess() is None


async def test_characters_count_too_and_are_released() -> None:
    groups = OpenGroups(max_members=100, max_chars=1000)
    many, long = group("a", "1"), group("b", "2", chars=400)
    for one in (many, long):
        groups.add(one)
    for member in range(10):
        groups.add_member(many, member, "text", 0.0)
    groups.add_member(long, 0, "x" * 500, 0.0)
    assert groups.excess() is long
    groups.remove_member(long, 0)
    assert groups.excess() is None
    for one in list(groups):
        groups.remove(one)
    assert (len(groups), groups.excess()) == (0, None)
    assert not groups.tenants
    # The limits are free again, to the last character.
    groups.add(full := group("a", "1"))
    for member in range(100):
        groups.add_member(full, member, "", 0.0)
    assert groups.excess() is None
    groups.add_member(full, 100, "", 0.0)
    assert groups.excess() is full
