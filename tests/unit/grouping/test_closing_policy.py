"""When a group closes, and in which order it is judged."""

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
    judged_order,
    judging_deadline_s,
    max_wait_s,
    p95_s,
)

GROUP = GroupState(
    members=3, n=8, distinct=3, max_responses=64, opened_s=100.0, last_s=104.0, idle_s=2.0, max_wait_s=30.0
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
        ({"max_wait_s": 5.0}, (105.0, Close.DEADLINE)),
        ({"max_wait_s": 0.0}, (100.0, Close.DEADLINE)),
    ],
)
def test_closing(changes: Any, closes: tuple[float, Close]) -> None:
    assert closing(replace(GROUP, **changes)) == closes


@pytest.mark.parametrize(
    ("timeout_s", "judging_s", "wait_s"),
    [(None, 500.0, 30.0), (180.0, 0.0, 30.0), (60.0, 34.0, 20.0), (60.0, 80.0, 0.0)],
)
def test_the_wait_leaves_time_to_judge(timeout_s: float | None, judging_s: float, wait_s: float) -> None:
    assert max_wait_s(30.0, timeout_s, judging_s) == pytest.approx(wait_s)
    if timeout_s is not None:
        assert wait_s + judging_deadline_s(timeout_s, wait_s) < timeout_s


def test_95th_percentile() -> None:
    assert p95_s([]) == 0.0
    assert p95_s([7.0]) == 7.0
    assert p95_s([1.0] * 98 + [50.0, 50.0]) == 1.0
    assert p95_s([1.0] * 90 + [50.0] * 10) == 50.0


@given(st.lists(st.text(), min_size=1), st.randoms())
def test_the_order_does_not_depend_on_arrival(responses: list[str], random: Random) -> None:
    shuffled = list(responses)
    random.shuffle(shuffled)
    assert judged_order(shuffled) == judged_order(responses)
    assert sorted(judged_order(responses)) == sorted(set(responses))


def test_fingerprints_keep_texts_apart() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
