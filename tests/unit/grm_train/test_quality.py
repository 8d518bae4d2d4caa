"""The metrics of a card, checked against their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grm_train.meta_rm.quality import calibration_error, group_aucs, informative, interval, members_of, probabilities


def brute_force(values: list[float], right: list[bool], groups: list[int]) -> float:
    shares = []
    for group in sorted(set(groups)):
        of_group = [(v, r) for v, r, g in zip(values, right, groups, strict=True) if g == group]
        pairs = [(a, b) for a, good in of_group for b, other in of_group if good and not other]
        if pairs:
            shares.append(sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs))
    return sum(shares) / len(shares)


@pytest.mark.parametrize("seed", range(20))
def test_within_prompt_auc_matches_its_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # Few distinct values give many ties. Some groups have one kind only.
    values, right, groups = rng.integers(0, 4, 40).astype(float), rng.random(40) < 0.4, rng.integers(0, 9, 40)
    expected = brute_force(values.tolist(), right.tolist(), groups.tolist())
    assert group_aucs(values, right, groups).mean() == pytest.approx(expected)
    assert len(group_aucs(values, right, groups)) == informative(right, groups)


def test_perfect_inverted_and_constant_values() -> None:
    right, groups = np.array([True, False] * 3), np.repeat([4, 7, 9], 2)
    assert group_aucs(right.astype(float), right, groups).tolist() == [1, 1, 1]
    assert group_aucs(-right.astype(float), right, groups).tolist() == [0, 0, 0]
    assert group_aucs(np.zeros(6), right, groups).tolist() == [0.5, 0.5, 0.5]
    assert len(group_aucs(np.zeros(6), np.ones(6, dtype=np.bool_), groups)) == 0


def test_differences_between_requests_do_not_count() -> None:
    """A value that only separates easy from hard requests has a within-prompt AUC of one half."""
    groups = np.repeat(np.arange(50), 4)
    right = np.tile([True, False, False, False], 50)
    assert group_aucs(groups.astype(float), right, groups).mean() == 0.5


def test_groups_need_not_be_adjacent() -> None:
    assert [members.tolist() for members in members_of(np.array([3, 1, 3, 1]))] == [[1, 3], [0, 2]]
    assert members_of(np.array([], dtype=np.intp)) == []


@pytest.mark.no_cover
def test_the_interval_covers_the_true_mean() -> None:
    covered = 0
    for seed in range(100):
        low, high = interval(np.random.default_rng(seed).choice([0.0, 0.5, 1.0], 60, p=[0.2, 0.3, 0.5]), seed)
        covered += low <= 0.65 <= high
    assert 88 <= covered <= 100


def test_probabilities() -> None:
    found = probabilities(np.array([-1000.0, 0.0, 2.0]), (2.0, -1.0))
    assert found.tolist() == pytest.approx([0, 1 / (1 + math.e), 1 / (1 + math.exp(-3))])


def test_calibration_error() -> None:
    right = np.array([True, False] * 100)
    assert calibration_error(np.full(200, 0.5), right) == pytest.approx(0)
    assert calibration_error(np.full(200, 0.8), right) == pytest.approx(0.3)
    # All with p = 0.9 are right, none with p = 0.1 is.
    assert calibration_error(np.where(right, 0.9, 0.1), right) == pytest.approx(0.1)
