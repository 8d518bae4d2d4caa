"""Balance of the designed orders, checked by counting."""

from collections import Counter
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_server.grm.plan import (
    derive_seed,
    latin_squares,
    make_plan,
    plan,
    plan_blocks,
    plan_exchangeable,
    request_seed,
    wave_end,
    wave_unit,
)
from grm_server.grm.types import Message, Task


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
    draws = plan(range(n), k, seed)
    assert [draw.index for draw in draws] == list(range(k))
    assert all(sorted(draw.order) == list(range(n)) for draw in draws)
    assert len({draw.order for draw in draws}) <= len(design(n))
    assert len({draw.seed for draw in draws}) == k
    # Every whole Latin square of the launch order shows each response once at each position.
    for start in range(0, k - n + 1, n):
        for shown in zip(*(draw.order for draw in draws[start : start + n]), strict=True):
            assert sorted(shown) == list(range(n))


def test_whole_designs_come_first() -> None:
    orders = [draw.order for draw in plan(range(3), 14, seed=0)]
    assert len(set(orders[:6])) == len(set(orders[6:12])) == 6
    assert len(set(orders[12:])) == 2


def test_the_seed_determines_the_plan_and_the_labels() -> None:
    assert plan(range(4), 8, seed=7) == plan(range(4), 8, seed=7)
    assert len({plan(range(4), 1, seed=s)[0].order for s in range(200)}) == 24


def test_seeds_of_neighbouring_requests_do_not_collide() -> None:
    seeds = [draw.seed for s in range(50) for draw in plan(range(2), 32, seed=s)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= s < 2**53 for s in seeds)
    assert derive_seed(1, 23) != derive_seed(12, 3)


@pytest.mark.parametrize(("n", "k"), [(0, 1), (1, 0)])
def test_nothing_to_plan(n: int, k: int) -> None:
    with pytest.raises(ValueError, match="at least one response and k >= 1"):
        plan(range(n), k, seed=0)


def test_orders_within_a_square_are_shuffled() -> None:
    steps = set()
    for seed in range(50):
        first, second = (draw.order for draw in plan(range(4), 2, seed))
        steps.add(tuple(first.index(i) for i in second))
    # Otherwise the second order would, up to labels, follow from the first in the same way for every seed.
    assert len(steps) == 3


def ends(k: int, unit: int, since: int = 0) -> list[int]:
    rounds = [since]
    while rounds[-1] < k:
        rounds.append(wave_end(rounds[-1], k, unit, since))
    return rounds[1:]


def test_waves_are_whole_designs() -> None:
    assert ends(32, 1) == ends(32, 2) == ends(32, 4) == [4, 8, 16, 24, 32]
    assert ends(48, 1) == [4, 8, 16, 24, 32, 40, 48]
    assert ends(32, 6) == [6, 12, 18, 24, 32]
    assert ends(16, 8) == [8, 16]
    assert ends(16, 5) == [5, 10, 16]
    assert ends(5, 2) == [4, 5]
    assert ends(3, 1) == [3]
    # After two of eight responses were dropped at sample 8, a design has six samples.
    assert ends(32, 6, since=8) == [20, 26, 32]


def test_the_unit_of_a_wave() -> None:
    assert [wave_unit(n) for n in (1, 2, 3, 4, 5, 7, 8)] == [1, 2, 6, 4, 5, 7, 8]


def test_the_waves_of_a_plan_are_its_draws_in_order() -> None:
    planned = make_plan(range(4), 32, seed=1, list_size=8)
    waves = [planned.wave(drawn, 32) for drawn in (0, 4, 8, 16, 24)]
    assert [draw for wave in waves for draw in wave] == list(planned.draws) == list(plan(range(4), 32, seed=1))
    assert planned.wave(32, 32) == ()


def test_a_plan_over_contenders_continues_after_the_first() -> None:
    planned = make_plan([1, 4, 6], 16, seed=1, list_size=8, since=8, first=8)
    assert [draw.index for draw in planned.draws] == list(range(8, 16))
    assert all(sorted(draw.order) == [1, 4, 6] for draw in planned.draws)
    assert {draw.seed for draw in planned.draws} == {derive_seed(1, j) for j in range(8, 16)}
    assert planned.wave(8, 16) == planned.draws


def test_a_long_list_is_planned_in_blocks() -> None:
    planned = make_plan(range(20), 16, seed=1, list_size=8)
    assert planned.samples_per_round == 3
    assert len(planned.draws) == 48
    assert len(planned.wave(0, 16)) == 12
    assert planned.wave(0, 16) + planned.wave(4, 16) == planned.draws[:24]


@pytest.mark.parametrize(
    ("n", "list_size", "rounds"), [(9, 8, 16), (16, 8, 8), (17, 8, 8), (48, 8, 16), (64, 8, 16), (5, 2, 8)]
)
def test_blocks_are_balanced(n: int, list_size: int, rounds: int) -> None:
    draws = plan_blocks(range(n), rounds, list_size, seed=3)
    count = -(-n // list_size)
    assert len(draws) == rounds * count
    sizes = {len(draw.order) for draw in draws}
    assert max(sizes) <= list_size
    assert max(sizes) - min(sizes) <= 1
    for start in range(0, len(draws), count):
        assert sorted(i for draw in draws[start : start + count] for i in draw.order) == list(range(n))
    pair_counts = Counter(pair for draw in draws for pair in combinations(sorted(draw.order), 2))
    counts = [pair_counts[pair] for pair in combinations(range(n), 2)]
    mean = sum(counts) / len(counts)
    # In a random assignment the variance would be close to the mean.
    assert sum((count - mean) ** 2 for count in counts) / len(counts) < 0.5 * mean
    at_position = Counter((i, p) for draw in draws for p, i in enumerate(draw.order))
    position_counts = [at_position[i, p] for i in range(n) for p in range(min(sizes))]
    assert max(position_counts) - min(position_counts) <= 2


def test_the_seed_determines_the_blocks() -> None:
    one = plan_blocks(range(20), 4, 8, seed=1)
    assert one == plan_blocks(range(20), 4, 8, seed=1)
    assert {draw.order for draw in one} != {draw.order for draw in plan_blocks(range(20), 4, 8, seed=2)}


def test_a_plan_for_strict_draws_each_order_independently() -> None:
    assert make_plan(range(4), 32, 1, 8, exchangeable=True).draws == plan_exchangeable(range(4), 32, 1)
    assert make_plan(range(3), 32, 1, 8, exchangeable=True).wave(0, 32)[-1].index == 3


def test_exchangeable_draws_are_shuffled_orders_of_the_design() -> None:
    draws = plan_exchangeable(range(4), 400, seed=1)
    counts = Counter(draw.order for draw in draws)
    assert len(counts) == 4
    assert all(60 < count < 140 for count in counts.values())
    # A balanced plan never shows an order twice within a block of four.
    assert any(len({draw.order for draw in draws[j : j + 4]}) < 4 for j in range(0, 400, 4))


class Unescapable(str):
    """A text that is never escaped: for four megabytes that takes 50 ms in one go."""

    __slots__ = ()

    def __repr__(self) -> str:
        raise AssertionError


TASK = Task((Message("user", "a"), Message("user", "b")), ("c", "d"), "e")


def test_the_content_of_a_task_is_hashed_without_escaping_it() -> None:
    text = Unescapable("\udc97")
    assert request_seed(3, Task((Message("user", text),), (text,), text, text)) < 2**53


def test_all_texts_of_a_task_count_for_its_seed() -> None:
    changed: list[dict[str, Any]] = [
        {"query": (Message("user", "a"),)},
        {"query": (Message("user", "ab"), Message("user", ""))},
        {"query": (Message("system", "a"), Message("user", "b"))},
        {"responses": ("cd", "")},
        {"responses": ("c",), "reference": "de"},
        {"responses": ("c", "d", "e"), "reference": None},
        {"reference": None, "principles": "e"},
        {"principles": ""},
    ]
    seeds = {request_seed(3, replace(TASK, **change)) for change in changed}
    assert len(seeds | {request_seed(3, TASK)}) == len(changed) + 1
    assert request_seed(3, replace(TASK, hint=1)) == request_seed(3, TASK)
