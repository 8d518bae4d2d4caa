"""The designs' promises, checked by counting."""

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_server.grm.plan import derive_seed, latin_squares, plan


def design(n: int) -> list[tuple[int, ...]]:
    return [order for square in latin_squares(n) for order in square]


@pytest.mark.parametrize("n", range(1, 17))
def test_each_response_stands_equally_often_at_each_position(n: int) -> None:
    orders = design(n)
    counts = Counter((p, i) for order in orders for p, i in enumerate(order))
    assert set(counts.values()) == {len(orders) // n}
    assert len(counts) == n * n


@pytest.mark.parametrize("n", range(2, 17))
def test_each_response_follows_each_other_one_equally_often(n: int) -> None:
    counts = Counter(pair for order in design(n) for pair in pairwise(order))
    assert len(counts) == n * (n - 1)
    assert set(counts.values()) == {1 if n % 2 == 0 else 2}


@pytest.mark.parametrize(("n", "size"), [(1, 1), (2, 2), (3, 6), (4, 4), (5, 10), (8, 8)])
def test_size_of_a_design(n: int, size: int) -> None:
    assert len(set(design(n))) == len(design(n)) == size


@given(n=st.integers(1, 12), k=st.integers(1, 40), seed=st.integers(0, 2**53 - 1))
def test_plan(n: int, k: int, seed: int) -> None:
    draws = plan(n, k, seed)
    assert [draw.index for draw in draws] == list(range(k))
    assert all(sorted(draw.order) == list(range(n)) for draw in draws)
    assert len({draw.order for draw in draws}) <= len(design(n))
    assert len({draw.seed for draw in draws}) == k
    # Every whole Latin square of the launch order shows each response once at each position.
    for start in range(0, k - n + 1, n):
        for shown in zip(*(draw.order for draw in draws[start : start + n]), strict=True):
            assert sorted(shown) == list(range(n))


def test_whole_designs_come_first() -> None:
    orders = [draw.order for draw in plan(3, 14, seed=0)]
    assert len(set(orders[:6])) == len(set(orders[6:12])) == 6
    assert len(set(orders[12:])) == 2


def test_same_seed_same_plan_and_other_seed_other_labels() -> None:
    assert plan(4, 8, seed=7) == plan(4, 8, seed=7)
    assert len({plan(4, 1, seed=s)[0].order for s in range(200)}) == 24


def test_seeds_of_neighbouring_requests_do_not_meet() -> None:
    seeds = [draw.seed for s in range(50) for draw in plan(2, 32, seed=s)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**53 for s in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)


@pytest.mark.parametrize(("n", "k"), [(0, 1), (1, 0)])
def test_nothing_to_plan(n: int, k: int) -> None:
    with pytest.raises(ValueError, match="n >= 1 and k >= 1"):
        plan(n, k, seed=0)


def test_orders_within_a_square_come_in_random_turn() -> None:
    steps = set()
    for seed in range(50):
        first, second = (draw.order for draw in plan(4, 2, seed))
        steps.add(tuple(first.index(i) for i in second))
    # Labels aside, the second order would otherwise be the same step from the first for every seed.
    assert len(steps) == 3
