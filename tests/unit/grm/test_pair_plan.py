"""Pairs and singles: balance, connectedness and sizes of the designs, checked by counting."""

from collections import Counter
from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_server.grm.pair_plan import RING_ROUNDS, pair_design, pair_samples
from grm_server.grm.plan import derive_seed, layout_of, make_plan, samples_after
from grm_server.grm.types import Order

SIZES = [2, 3, 4, 5, 6, 7, 8, 9, 16, 17]


def connected(pairs: list[Order], n: int) -> bool:
    reached = {0}
    for _ in range(n):
        reached |= {i for pair in pairs if reached & set(pair) for i in pair}
    return len(reached) == n


@pytest.mark.parametrize("n", SIZES)
def test_the_first_ring_connects_all_responses_in_both_orders(n: int) -> None:
    ring = list(pair_design(n, RING_ROUNDS))
    assert len(ring) == 2 * n
    assert connected(ring, n)
    # One direction is enough to connect them, and shows each once at each position.
    assert connected(ring[:n], n)
    assert sorted(first for first, _ in ring[:n]) == sorted(second for _, second in ring[:n]) == list(range(n))
    counts = Counter(ring)
    assert all(counts[a, b] == counts[b, a] for a, b in ring)


@given(n=st.integers(2, 12), rings=st.integers(1, 30))
def test_both_orders_of_all_pairs_are_shown_about_equally_often(n: int, rings: int) -> None:
    counts = Counter(pair_design(n, RING_ROUNDS * rings))
    meetings = [counts[pair] for pair in permutations(range(n), 2)]
    assert all(counts[a, b] == counts[b, a] for a, b in combinations(range(n), 2))
    assert max(meetings) - min(meetings) <= 1
    assert sum(meetings) == 2 * n * rings


@pytest.mark.parametrize("n", SIZES)
def test_a_round_shows_each_response_about_once(n: int) -> None:
    orders = pair_design(n, 23)
    for rounds in range(1, 24):
        shown = Counter(i for pair in orders[: pair_samples(n, rounds)] for i in pair)
        assert all(rounds <= shown[i] <= rounds + n % 2 for i in range(n))


@pytest.mark.parametrize("n", SIZES[1:])
def test_all_pairs_meet_before_any_pair_meets_for_the_third_time(n: int) -> None:
    counts = Counter(frozenset(pair) for pair in pair_design(n, 2 * n + 2))
    assert len(counts) == n * (n - 1) // 2


@given(n=st.integers(3, 12), k=st.integers(1, 40), seed=st.integers(0, 2**53 - 1))
def test_the_plan_relabels_the_design(n: int, k: int, seed: int) -> None:
    planned = make_plan(range(n), k, seed, 8, max_shown=2)
    assert (planned.layout, planned.unit) == ("pairs", RING_ROUNDS)
    assert [draw.seed for draw in planned.draws] == [derive_seed(seed, j) for j in range(pair_samples(n, k))]
    label: dict[int, int] = {}
    for draw, pair in zip(planned.draws, pair_design(n, k), strict=True):
        assert all(label.setdefault(position, i) == i for position, i in zip(pair, draw.order, strict=True))
    assert len(set(label.values())) == len(label)
    assert planned.ends[-1] == len(planned.draws)


def test_the_first_response_is_not_always_in_the_same_place() -> None:
    assert len({make_plan(range(4), 4, seed, 8, max_shown=2).draws[0].order for seed in range(100)}) == 12


def test_waves_of_pairs_are_whole_rings() -> None:
    planned = make_plan(range(5), 32, 1, 8, max_shown=2)
    ends = [0]
    while ends[-1] < 32:
        wave = planned.wave(ends[-1], 32)
        ends.append(planned.wave_end(ends[-1], 32))
        assert len(wave) == 5 * (ends[-1] - ends[-2]) / 2
        assert all(
            count == Counter(d.order for d in wave)[b, a] for (a, b), count in Counter(d.order for d in wave).items()
        )
    assert ends == [0, 4, 8, 16, 24, 32]
    assert planned.wave(32, 32) == ()


def test_an_odd_number_of_rounds_of_an_odd_number_of_responses() -> None:
    planned = make_plan(range(5), 7, 1, 8, max_shown=2)
    assert planned.ends == (3, 5, 8, 10, 13, 15, 18)
    assert [len(planned.wave(drawn, 7)) for drawn in (0, 4)] == [10, 8]
    assert planned.samples_per_round == 18 / 7


def test_after_dropping_the_pairs_are_those_of_the_survivors() -> None:
    planned = make_plan([1, 4, 6], 16, 1, 8, max_shown=2, since=4, first=14)
    assert {i for draw in planned.draws for i in draw.order} == {1, 4, 6}
    assert planned.draws[0].index == 14
    assert planned.wave(4, 16) == planned.draws[:6]
    last_two = make_plan([1, 4], 16, 1, 8, max_shown=2, since=8, first=20)
    assert Counter(draw.order for draw in last_two.draws) == {(1, 4): 4, (4, 1): 4}


def test_singles_show_every_response_once_in_a_round_in_random_order() -> None:
    planned = make_plan(range(5), 8, 1, 8, max_shown=1)
    rounds = [[draw.order for draw in planned.draws[start : start + 5]] for start in range(0, 40, 5)]
    assert all(sorted(one) == [(i,) for i in range(5)] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 4
    assert (planned.layout, planned.samples_per_round, planned.unit) == ("singles", 5, 1)
    assert planned.wave(0, 8) == planned.draws[:20]
    assert len({draw.seed for draw in planned.draws}) == 40


@pytest.mark.parametrize(
    ("n", "list_size", "max_shown", "layout"),
    [
        (1, 8, 1, "lists"),
        (2, 8, 1, "singles"),
        (2, 8, 2, "lists"),
        (3, 8, 2, "pairs"),
        (8, 8, None, "lists"),
        (9, 8, None, "blocks"),
        (5, 2, None, "blocks"),
        (5, 8, 4, "blocks"),
    ],
)
def test_the_layout_follows_from_what_the_judge_can_read(
    n: int, list_size: int, max_shown: int | None, layout: str
) -> None:
    assert layout_of(n, list_size, max_shown) == layout
    planned = make_plan(range(n), 6, 3, list_size, max_shown=max_shown)
    assert planned.layout == layout
    assert max(len(draw.order) for draw in planned.draws) <= min(list_size, max_shown or n)
    for rounds in range(1, 7):
        assert planned.ends[rounds - 1] == samples_after(rounds, n, list_size, max_shown)
    assert np.array_equal(np.unique([i for draw in planned.draws for i in draw.order]), np.arange(n))
