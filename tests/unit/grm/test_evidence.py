"""Means, variances and degrees of freedom of differences, against hand calculation and simulated truth."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from grm_server.grm.evidence import PRIOR_FREEDOM, gather, position_effect
from grm_server.grm.plan import plan, plan_blocks, plan_singles
from grm_server.grm.types import Floats, Prior

PRIOR = Prior(pair_variance=3.0, gap_variance=2.0, score_variance=1.5)
NAN = float("nan")


def test_whole_lists_have_plain_means_and_paired_variances() -> None:
    values = np.array([[5.0, 3.0], [7.0, 4.0], [6.0, 5.0], [NAN, NAN]])
    evidence = gather(values, [(0, 1)] * 4, PRIOR)
    assert (evidence.launched, evidence.valid) == (4, 3)
    assert evidence.means == pytest.approx([6.0, 4.0])
    assert evidence.shown.tolist() == [3, 3]
    assert evidence.pairs[0, 1] == pytest.approx(3)
    # Differences 2, 3, 1: squares about their mean 2.
    assert evidence.freedom[0, 1] == 2 + PRIOR_FREEDOM
    assert evidence.pair_variance[0, 1] == pytest.approx((2 + PRIOR_FREEDOM * 3.0) / (2 + PRIOR_FREEDOM))
    assert evidence.mean_variance[0] == pytest.approx((2 + PRIOR_FREEDOM * 1.5) / (2 + PRIOR_FREEDOM) / 3)
    assert evidence.pair_variance[0, 0] == 0


def test_a_position_effect_does_not_count_as_noise() -> None:
    orders = [(0, 1), (1, 0)] * 4
    # The first position is worth 4 points, and nothing else varies.
    values = np.array([[9.0, 5.0], [5.0, 9.0]] * 4)
    evidence = gather(values, orders, PRIOR)
    assert evidence.means == pytest.approx([7.0, 7.0])
    assert evidence.pair_variance[0, 1] == pytest.approx(PRIOR_FREEDOM * 3.0 / (6 + PRIOR_FREEDOM))
    effect = position_effect(values, orders, evidence.means)
    assert effect is not None
    assert effect.tolist() == [2.0, -2.0]


def test_positions_cost_few_degrees_of_freedom_even_when_each_order_is_shown_once() -> None:
    """Four responses in four orders, each shown once: no order repeats, but positions explain the orders."""
    orders = [draw.order for draw in plan(range(4), 4, seed=0)]
    effect = np.array([3.0, 1.0, -1.0, -3.0])
    rng = np.random.default_rng(0)
    estimates = []
    for _ in range(400):
        values = 5 + rng.normal(0, 1.2, (4, 4)) + rng.normal(0, 1, (4, 1))
        for j, order in enumerate(orders):
            values[j, list(order)] += effect
        evidence = gather(values, orders, Prior(1e-12, 2.0, 1e-12))
        assert evidence.freedom[0, 1] == pytest.approx(2 + PRIOR_FREEDOM)
        estimates.append(evidence.pair_variance.sum() / 12 * (2 + PRIOR_FREEDOM) / 2)
    # The position is worth 6 points, and none of them count as noise.
    assert np.mean(estimates) == pytest.approx(2 * 1.2**2, rel=0.1)


@pytest.mark.parametrize(("leniency", "sigma"), [(0.5, 1.0), (2.0, 0.6)])
def test_standard_errors_of_means_in_blocks_match_the_simulated_errors(leniency: float, sigma: float) -> None:
    rng = np.random.default_rng(3)
    n = 18
    draws = plan_blocks(range(n), 6, 6, seed=4)
    orders = [draw.order for draw in draws]
    squared_errors, reported = [], []
    for _ in range(300):
        values = np.full((len(draws), n), NAN)
        for j, draw in enumerate(draws):
            values[j, list(draw.order)] = rng.normal(0, sigma, 6) + rng.normal(0, leniency)
        evidence = gather(values, orders, Prior(2 * sigma**2, 2.0, leniency**2 + sigma**2), layout="blocks")
        squared_errors.append(evidence.means**2)
        reported.append(evidence.mean_variance)
    assert np.mean(squared_errors) == pytest.approx(np.mean(reported), rel=0.15)


@given(
    values=arrays(float, (6, 3), elements=st.floats(1, 10)),
    leniency=arrays(float, (6, 1), elements=st.floats(-3, 3)),
)
def test_leniency_changes_no_difference(values: Floats, leniency: Floats) -> None:
    orders = [draw.order for draw in plan(range(3), 6, seed=0)]
    one, other = gather(values, orders, PRIOR), gather(values + leniency, orders, PRIOR)
    assert np.diff(other.means) == pytest.approx(np.diff(one.means), abs=1e-6)
    assert other.pair_variance == pytest.approx(one.pair_variance, abs=1e-6)


def test_a_lenient_sample_does_not_favour_its_block() -> None:
    rng = np.random.default_rng(1)
    n, truth = 20, np.linspace(3, 8, 20)
    draws = plan_blocks(range(n), 6, 8, seed=4)
    values = np.full((len(draws), n), NAN)
    for j, draw in enumerate(draws):
        block = list(draw.order)
        values[j, block] = truth[block] + rng.normal(0, 3)
    evidence = gather(values, [draw.order for draw in draws], PRIOR, layout="blocks")
    # Leniency is the only noise: differences are exact, and plain means are not.
    assert np.diff(evidence.means) == pytest.approx(np.diff(truth), abs=1e-5)
    plain = np.nanmean(values, axis=0)
    assert np.abs(np.diff(plain) - np.diff(truth)).max() > 0.5


@pytest.mark.no_cover
def test_standard_errors_of_differences_in_blocks_match_the_simulated_errors() -> None:
    rng = np.random.default_rng(2)
    n, sigma = 12, 1.3
    draws = plan_blocks(range(n), 6, 4, seed=4)
    orders = [draw.order for draw in draws]
    errors, reported, noise = [], [], []
    for _ in range(300):
        values = np.full((len(draws), n), NAN)
        for j, draw in enumerate(draws):
            values[j, list(draw.order)] = rng.normal(0, sigma, 4) + rng.normal(0, 2)
        evidence = gather(values, orders, Prior(2 * sigma**2, 2.0, 1.0), layout="blocks")
        errors.append(evidence.means[0] - evidence.means[7])
        reported.append(evidence.pair_variance[0, 7] / evidence.pairs[0, 7])
        noise.append(evidence.pair_variance[0, 7])
    assert np.mean(noise) == pytest.approx(2 * sigma**2, rel=0.05)
    assert np.var(errors) == pytest.approx(np.mean(reported), rel=0.25)


def test_dropped_responses_keep_their_mean_and_gain_little_precision() -> None:
    early = np.array([[8.0, 5.0, 2.0], [7.0, 6.0, 1.0], [8.0, 5.0, 3.0], [7.0, 6.0, 2.0]])
    late = np.array([[8.0, 5.0, NAN], [7.0, 6.0, NAN]] * 6)
    orders = [(0, 1, 2)] * 4 + [(0, 1)] * 12
    before, after = gather(early, orders[:4], PRIOR), gather(np.vstack([early, late]), orders, PRIOR)
    assert after.means == pytest.approx(before.means, abs=1e-6)
    assert after.pairs[0, 1] == pytest.approx(16, rel=1e-5)
    assert before.pairs[0, 2] == pytest.approx(4, rel=1e-5)
    assert after.pairs[0, 2] < 6.5
    assert after.shown.tolist() == [16, 16, 4]


def test_a_response_without_a_score_has_no_mean() -> None:
    evidence = gather(np.array([[5.0, 6.0, NAN]]), [(0, 1)], PRIOR, layout="blocks")
    assert np.isnan(evidence.means[2])
    assert evidence.means[:2] == pytest.approx([5, 6])


def test_without_scores_there_are_no_means() -> None:
    evidence = gather(np.full((3, 2), NAN), [(0, 1)] * 3, PRIOR)
    assert (evidence.launched, evidence.valid) == (3, 0)
    assert np.isnan(evidence.means).all()


def test_means_of_blocks_that_share_no_response_cannot_be_compared() -> None:
    values = np.array([[5.0, 6.0, NAN, NAN], [NAN, NAN, 7.0, 9.0]] * 3)
    evidence = gather(values, [(0, 1), (2, 3)] * 3, PRIOR, layout="blocks")
    assert evidence.means == pytest.approx([5, 6, 7, 9], abs=1e-4)
    assert evidence.pairs[0, 1] == pytest.approx(3, rel=1e-4)
    assert evidence.pairs[0, 2] < 1e-4


def test_position_effect_needs_two_positions_and_a_whole_square() -> None:
    assert position_effect(np.array([[5.0]] * 8), [(0,)] * 8, np.array([5.0])) is None
    orders = [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    values = np.array([[6.0, 5.0, 4.0], [4.0, 6.0, 5.0], [5.0, 4.0, 6.0]])
    assert position_effect(values[:2], orders[:2], values.mean(axis=0)) is None
    effect = position_effect(values, orders, values.mean(axis=0))
    assert effect is not None
    assert effect == pytest.approx([1.0, 0.0, -1.0])


def test_position_effect_leaves_out_samples_that_show_fewer_responses() -> None:
    orders = [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 1)]
    values = np.array([[6.0, 5.0, 4.0], [4.0, 6.0, 5.0], [5.0, 4.0, 6.0], [1.0, 9.0, NAN]])
    effect = position_effect(values, orders, np.array([5.0, 5.0, 5.0]))
    assert effect is not None
    assert effect == pytest.approx([1.0, 0.0, -1.0])


def test_singles_have_plain_means_and_independent_errors() -> None:
    values = np.full((7, 2), NAN)
    values[:4, 0], values[4:, 1] = [5.0, 7.0, 6.0, 6.0], [3.0, 3.0, 6.0]
    evidence = gather(values, [(0,)] * 4 + [(1,)] * 3, PRIOR, layout="singles")
    assert evidence.means == pytest.approx([6.0, 4.0])
    assert (evidence.valid, evidence.shown.tolist()) == (7, [4, 3])
    variances = [(2 + 3 * 1.5) / (3 + 3), (6 + 3 * 1.5) / (2 + 3)]
    errors = [variances[0] / 4, variances[1] / 3]
    assert evidence.mean_variance == pytest.approx(errors)
    assert evidence.pair_variance[0, 1] == pytest.approx(sum(variances))
    assert evidence.pair_variance[0, 1] / evidence.pairs[0, 1] == pytest.approx(sum(errors))
    assert evidence.freedom[0, 1] == pytest.approx(sum(errors) ** 2 / (errors[0] ** 2 / 6 + errors[1] ** 2 / 5))
    assert evidence.pair_variance[0, 0] == 0


def test_a_response_without_a_single_has_no_mean() -> None:
    evidence = gather(np.array([[5.0, NAN], [NAN, NAN]]), [(0,), (1,)], PRIOR, layout="singles")
    assert evidence.means[0] == 5
    assert np.isnan(evidence.means[1])
    assert (evidence.launched, evidence.valid) == (2, 1)


@pytest.mark.no_cover
def test_errors_of_singles_match_the_simulated_errors() -> None:
    """A lenient sample does not cancel, because it shows one response only."""
    rng = np.random.default_rng(4)
    orders = [draw.order for draw in plan_singles(range(3), 6, 0)]
    sd = np.array([0.5, 1.0, 2.0])
    errors, reported = [], []
    for _ in range(400):
        values = np.full((18, 3), NAN)
        for j, (i,) in enumerate(orders):
            values[j, i] = rng.normal(5, sd[i])
        evidence = gather(values, orders, Prior(1e-12, 2.0, 1e-12), layout="singles")
        errors.append(evidence.means - 5)
        reported.append(evidence.mean_variance * (5 + PRIOR_FREEDOM) / 5)
    assert np.var(errors, axis=0) == pytest.approx(np.mean(reported, axis=0), rel=0.2)
