"""In which order waiting requests are served."""

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_server.admission.fair_queue import FairQueue, Ticket

Item = tuple[str, int, float, int]
"""tenant, rank, cost, index of arrival"""

costs = st.sampled_from([1.0, 2.0, 16.0, 512.0])
pushes = st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 2), costs), max_size=60)
SHARES = {"A": [16.0] * 40, "B": [1.0] * 640, "C": [512.0, 128.0]}


def filled(items: Sequence[tuple[str, int, float]]) -> FairQueue[Item]:
    queue: FairQueue[Item] = FairQueue()
    for number, (tenant, rank, cost) in enumerate(items):
        queue.push((tenant, rank, cost, number), tenant, rank, cost)
    return queue


def drained(queue: FairQueue[Item]) -> list[Item]:
    return [queue.pop() for _ in range(len(queue))]


@given(pushes)
def test_every_item_is_served_once_and_within_a_tenant_by_priority_and_arrival(
    items: list[tuple[str, int, float]],
) -> None:
    served = drained(filled(items))
    assert sorted(served, key=lambda item: item[3]) == [(*one, number) for number, one in enumerate(items)]
    for tenant in "ABC":
        own = [(rank, number) for of, rank, _, number in served if of == tenant]
        assert own == sorted(own)


@given(st.permutations("ABC"))
def test_waiting_tenants_have_equal_shares_whatever_the_size_of_their_items(order: list[str]) -> None:
    queue = filled([(tenant, 1, cost) for tenant in order for cost in SHARES[tenant]])
    served: Counter[str] = Counter()
    waiting = Counter({tenant: len(costs) for tenant, costs in SHARES.items()})
    while all(waiting.values()):
        tenant, _, cost, _ = queue.pop()
        served[tenant] += int(cost)
        waiting[tenant] -= 1
        # No tenant is ahead of another by more than one item of each.
        for one in "ABC":
            for other in "ABC":
                assert served[one] - served[other] <= max(SHARES[one]) + max(SHARES[other])


def test_a_single_request_overtakes_a_burst() -> None:
    queue = filled([("trainer", 0, 16.0)] * 1000)
    for _ in range(10):
        queue.pop()
    queue.push(("other", 2, 1.0, 1000), "other", 2, 1.0)
    served = drained(queue)
    assert [item[0] for item in served[:3]].count("other") == 1
    # A tenant that keeps sending gets its share and no more.
    queue = filled([("trainer", 0, 16.0)] * 100)
    order = []
    for number in range(40):
        queue.push(("other", 1, 16.0, 1000 + number), "other", 1, 16.0)
        order.append(queue.pop()[0])
    assert 18 <= order.count("other") <= 22


def test_an_idle_tenant_saves_nothing_up() -> None:
    queue = filled([("A", 1, 1.0)] * 100)
    for _ in range(50):
        queue.pop()
    for number in range(50):
        queue.push(("B", 1, 1.0, number), "B", 1, 1.0)
    first = [item[0] for item in drained(queue)][:20]
    assert 9 <= first.count("B") <= 11


@given(pushes, st.data())
def test_removed_items_are_not_served_and_do_not_affect_others(
    items: list[tuple[str, int, float]], data: st.DataObject
) -> None:
    queue: FairQueue[Item] = FairQueue()
    tickets = []
    for number, (tenant, rank, cost) in enumerate(items):
        tickets.append(queue.push((tenant, rank, cost, number), tenant, rank, cost))
    gone = [ticket for ticket in tickets if data.draw(st.booleans())]
    for ticket in gone:
        queue.remove(ticket)
    stayed = [ticket.item for ticket in tickets if ticket not in gone]
    assert len(queue) == len(stayed)
    assert queue.cost == pytest.approx(sum(cost for _, _, cost, _ in stayed))
    served = drained(queue)
    assert sorted(served, key=lambda item: item[3]) == stayed
    # A queue with only these items serves them in the same order.
    again: FairQueue[Item] = FairQueue()
    for item in stayed:
        again.push(item, item[0], item[1], item[2])
    if not gone or len({item[0] for item in stayed}) == 1:
        assert served == drained(again)


@given(pushes, st.sampled_from("ABD"), st.integers(0, 2))
def test_ahead_is_the_cost_served_before_up_to_one_item_of_each_tenant(
    items: list[tuple[str, int, float]], tenant: str, rank: int
) -> None:
    queue = filled(items)
    for _ in range(len(items) // 3):
        queue.pop()
    ahead = queue.ahead(tenant, rank)
    queue.push((tenant, rank, 1.0, -1), tenant, rank, 1.0)
    before = 0.0
    while (item := queue.pop())[3] != -1:
        before += item[2]
    assert ahead - 1e-6 <= before <= ahead + 2 * 512.0 + 1e-6
    if len({of for of, *_ in items} | {tenant}) == 1:
        assert before == pytest.approx(ahead)


@given(pushes)
def test_an_empty_queue_keeps_no_state(items: list[tuple[str, int, float]]) -> None:
    queue = filled(items)
    drained(queue)
    fresh: FairQueue[Item] = FairQueue()
    assert vars(queue) == vars(fresh)
    with pytest.raises(IndexError):
        queue.pop()


def test_a_served_item_cannot_be_removed() -> None:
    queue: FairQueue[str] = FairQueue()
    ticket: Ticket[str] = queue.push("it", "A", 1, 1.0)
    assert ticket in queue
    queue.pop()
    assert ticket not in queue
    with pytest.raises(KeyError):
        queue.remove(ticket)
