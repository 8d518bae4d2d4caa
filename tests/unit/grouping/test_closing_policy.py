"""When a group closes."""

from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_server.caching.hashing import fingerprint
from grm_server.grouping.closing_policy import (
    Close,
    GroupState,
    closing,
    gather_s,
    judged_order,
    left_s,
    usual_s,
)

GROUP = GroupState(
    members=3, n=8, distinct=3, max_responses=64, opened_s=100.0, last_s=104.0, idle_s=2.0, gather_s=30.0
)


@pytest.mark.parametrize(
    ("changes", "closes"),
    [
        ({}, (106.0, Close.IDLE)),
        ({"n": None}, (106.0, Close.IDLE)),
        ({"members": 8}, (104.0, Close.FULL)),
        ({"members": 9}, (104.0, Close.FULL)),
        ({"members": 8, "n": None}, (106.0, Close.IDLE)),
        ({"distinct": 64, "n": None}, (104.0, Close.FULL)),
        ({"gather_s": 5.0}, (105.0, Close.DEADLINE)),
        ({"gather_s": 0.0}, (100.0, Close.DEADLINE)),
    ],
)
def test_closing(changes: Any, closes: tuple[float, Close]) -> None:
    assert closing(replace(GROUP, **changes)) == closes


@pytest.mark.parametrize(
    ("timeout_s", "judging_s", "waits_s"),
    [(None, 500.0, 30.0), (180.0, 0.0, 30.0), (60.0, 34.0, 20.0), (60.0, 80.0, 0.0)],
)
def test_the_wait_leaves_time_to_judge(timeout_s: float | None, judging_s: float, waits_s: float) -> None:
    assert gather_s(30.0, timeout_s, judging_s) == pytest.approx(waits_s)
    if timeout_s is not None:
        assert waits_s + left_s(timeout_s, waits_s) < timeout_s


def test_what_judging_usually_takes() -> None:
    assert usual_s([]) == 0.0
    assert usual_s([7.0]) == 7.0
    assert usual_s([1.0] * 98 + [50.0, 50.0]) == 1.0
    assert usual_s([1.0] * 90 + [50.0] * 10) == 50.0


@given(st.lists(st.text(), min_size=1), st.randoms())
def test_the_order_does_not_depend_on_arrival(responses: list[str], random: Random) -> None:
    shuffled = list(responses)
    random.shuffle(shuffled)
    assert judged_order(shuffled) == judged_order(responses)
    assert sorted(judged_order(responses)) == sorted(set(responses))


def test_a_digest_knows_where_a_text_ends() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
