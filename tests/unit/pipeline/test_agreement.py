"""Disagreement and consensus AUC against counting by hand."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_server.pipeline.metrics import consensus_auc, disagreement

NAN = float("nan")


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[7, 3], [8, 2], [6, 5]], 0.0),
        ([[7, 3], [3, 7]], 1.0),
        ([[7, 3], [3, 7], [7, 3], [3, 7]], 4 / 6),
        ([[5, 5], [3, 7]], 0.0),  # a tie contradicts no sample
        ([[7, 3, 1], [3, 7, 1]], 1 / 3),
        ([[7, 3, NAN], [3, 7, NAN], [NAN, 5, 4]], 1.0),  # a pair shown by one sample does not count
        ([[7, 3]], None),
        ([[7], [3]], None),
        ([[7, NAN], [NAN, 3]], None),
    ],
)
def test_disagreement(scores: list[list[float]], expected: float | None) -> None:
    assert disagreement(np.array(scores, dtype=float)) == (None if expected is None else pytest.approx(expected))


def test_a_coin_disagrees_with_itself_half_the_time() -> None:
    rng = np.random.default_rng(0)
    coins = rng.integers(0, 2, size=(2000, 4))
    shares = [disagreement(np.stack([coin, 1 - coin], axis=1).astype(float)) for coin in coins]
    assert np.mean([share for share in shares if share is not None]) == pytest.approx(0.5, abs=0.02)


@given(st.integers(2, 6), st.integers(2, 4), st.integers(0, 2**32 - 1))
def test_disagreement_is_the_share_of_contradicting_pairs(m: int, n: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(1, 4, size=(m, n)).astype(float)
    shares = [
        np.mean([(x[a] - x[b]) * (y[a] - y[b]) < 0 for x, y in combinations(scores, 2)])
        for a, b in combinations(range(n), 2)
    ]
    assert disagreement(scores) == pytest.approx(np.mean(shares))


def test_the_auc_is_1_with_the_majority_and_0_against_it() -> None:
    scores = np.array([[8, 2], [7, 3], [9, 1], [2, 8]], dtype=float)
    rewards = np.array([0.9, 0.8, 0.7, 0.1])
    assert consensus_auc(scores, rewards) == 1.0
    assert consensus_auc(scores, 1 - rewards) == 0.0
    assert consensus_auc(scores, np.full(4, 0.4)) == 0.5


def test_a_sample_is_compared_with_the_vote_of_the_others() -> None:
    # With its large scores the first sample makes response 0 the best overall; without it, response 1 is the best.
    scores = np.array([[10, 1], [4, 5], [4, 5]], dtype=float)
    assert consensus_auc(scores, np.array([0.9, 0.1, 0.1])) is None


def test_a_sample_that_ties_its_best_is_wrong() -> None:
    scores = np.array([[8, 2], [8, 2], [5, 5]], dtype=float)
    assert consensus_auc(scores, np.array([0.9, 0.9, 0.1])) == 1.0


def test_blocks_are_compared_among_what_they_show() -> None:
    # The first two samples were not shown response 2, the best overall, which does not make them wrong.
    scores = np.array([[8, 2, NAN], [7, 2, NAN], [NAN, 2, 9], [NAN, 9, 2], [NAN, 2, 9]])
    assert consensus_auc(scores, np.array([0.9, 0.9, 0.9, 0.1, 0.9])) == 1.0


@pytest.mark.parametrize(
    "scores", [[[8, 2], [7, 3]], [[8, 2], [3, 7]], [[5], [6]], [[8, NAN], [NAN, 3]], np.empty((0, 2))]
)
def test_without_right_and_wrong_samples_there_is_no_auc(scores: list[list[float]]) -> None:
    assert consensus_auc(np.array(scores, dtype=float), np.full(len(scores), 0.5)) is None
