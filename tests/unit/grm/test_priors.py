"""Learned priors: they recover the simulated judge's variances and ignore unusable waves."""

from collections.abc import Sequence

import numpy as np
import pytest

from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.pair_plan import pair_design
from grm_server.grm.priors import BOUND, DEFAULT_WEIGHT, MEMORY, OUTLIER, LearnedPrior, observe
from grm_server.grm.types import Floats, Layout, Order

NAN = float("nan")
START = LearnedPrior(AGGREGATES["mean"].prior)


def wave(rng: np.random.Generator, n: int = 3, m: int = 6) -> Floats:
    """Variance of gaps 2 * 1.5^2, of noise 1.1^2 for each response, of leniency 0.9^2."""
    values: Floats = rng.normal(0, 1.5, n) + rng.normal(0, 0.9, (m, 1)) + rng.normal(0, 1.1, (m, n))
    return values


def test_priors_converge_to_the_variances_of_the_traffic() -> None:
    rng = np.random.default_rng(0)
    learnt = START
    for _ in range(3000):
        learnt = observe(learnt, wave(rng), "mean")
    assert learnt.prior.pair_variance == pytest.approx(2 * 1.1**2, rel=0.1)
    assert learnt.prior.gap_variance == pytest.approx(2 * 1.5**2, rel=0.15)
    assert learnt.prior.score_variance == pytest.approx(1.1**2 + 0.9**2, rel=0.1)


def test_the_default_weighs_as_much_as_20_requests_and_old_traffic_fades() -> None:
    one = observe(START, np.zeros((4, 2)), "mean")
    assert one.weight == DEFAULT_WEIGHT + 1
    assert one.prior.pair_variance == pytest.approx(AGGREGATES["mean"].prior.pair_variance * (1 - 1 / 21))
    late = observe(LearnedPrior(AGGREGATES["mean"].prior, 1e6), np.zeros((4, 2)), "mean")
    assert late.prior.pair_variance == pytest.approx(AGGREGATES["mean"].prior.pair_variance * (1 - 1 / MEMORY))


def test_a_judge_that_sees_no_difference_has_almost_no_gaps() -> None:
    rng = np.random.default_rng(0)
    learnt = START
    for _ in range(3000):
        learnt = observe(learnt, rng.normal(0, 3, (4, 2)), "mean")
    assert learnt.prior.gap_variance == pytest.approx(AGGREGATES["mean"].prior.gap_variance / BOUND)


def test_hostile_requests_cannot_move_a_prior_far() -> None:
    one = observe(START, np.array([[10.0, 1.0]] * 4), "mean")
    default = AGGREGATES["mean"].prior
    assert one.prior.gap_variance <= default.gap_variance * (1 + (OUTLIER - 1) / (DEFAULT_WEIGHT + 1))
    learnt = START
    for _ in range(5000):
        learnt = observe(learnt, np.array([[10.0, 1.0]] * 4), "mean")
    assert learnt.prior.gap_variance <= default.gap_variance * BOUND
    assert learnt.prior.pair_variance >= default.pair_variance / BOUND


@pytest.mark.parametrize(
    "values",
    [np.zeros((0, 2)), np.full((4, 2), NAN), np.array([[5.0, 6.0]]), np.array([[5.0, NAN], [4.0, 6.0]])],
)
def test_fewer_than_two_scores_of_a_response_change_nothing(values: Floats) -> None:
    assert observe(START, values, "mean") == START


def test_failed_samples_are_left_out() -> None:
    whole = np.array([[5.0, 6.0], [7.0, 4.0], [5.0, 5.0]])
    holes = np.vstack([whole, [[NAN, NAN]]])
    assert observe(START, holes, "mean") == observe(START, whole, "mean")


def test_single_responses_and_blocks_change_only_the_variance_of_a_score() -> None:
    for values in (np.array([[5.0], [7.0]]), np.array([[5.0, 6.0, NAN], [NAN, 7.0, 8.0], [4.0, NAN, 9.0]])):
        learnt = observe(START, values, "mean")
        assert learnt.prior.score_variance != START.prior.score_variance
        assert learnt.prior.pair_variance == START.prior.pair_variance
        assert learnt.prior.gap_variance == START.prior.gap_variance


def observed(layout: Layout, orders: Sequence[Order], position: list[float]) -> LearnedPrior:
    """After 2000 requests of four responses. position: what each position is worth."""
    rng, learnt = np.random.default_rng(1), START
    for _ in range(2000):
        truth = rng.normal(0, 1.5, 4)
        wave = np.full((len(orders), 4), NAN)
        for j, order in enumerate(orders):
            noise = rng.normal(0, 1.1, len(order)) + rng.normal(0, 0.9)
            wave[j, list(order)] = truth[list(order)] + position + noise
        learnt = observe(learnt, wave, "mean", layout=layout, orders=orders)
    return learnt


def test_pairs_teach_the_variances_of_differences_without_the_position() -> None:
    learnt = observed("pairs", list(pair_design(4, 4)), [2.0, -2.0])
    assert learnt.prior.pair_variance == pytest.approx(2 * 1.1**2, rel=0.1)
    assert learnt.prior.gap_variance == pytest.approx(2 * 1.5**2, rel=0.1)


def test_singles_teach_both_variances() -> None:
    learnt = observed("singles", [(i,) for i in range(4)] * 4, [0.0])
    assert learnt.prior.pair_variance == pytest.approx(2 * (1.1**2 + 0.9**2), rel=0.1)
    assert learnt.prior.gap_variance == pytest.approx(2 * 1.5**2, rel=0.15)


def test_winners_have_a_prior_of_their_own() -> None:
    default = AGGREGATES["mean"].winners_prior
    learnt = LearnedPrior(default)
    for _ in range(5000):
        learnt = observe(learnt, np.array([[10.0, 1.0]] * 4), "mean", winners=True)
    assert default.gap_variance < learnt.prior.gap_variance <= default.gap_variance * BOUND


def test_pairs_that_were_shown_once_teach_nothing_about_differences() -> None:
    orders: list[Order] = [(0, 1), (1, 2), (2, 0)]
    wave = np.array([[5.0, 6.0, NAN], [NAN, 4.0, 7.0], [3.0, NAN, 8.0]])
    one = observe(START, wave, "mean", layout="pairs", orders=orders)
    assert one.prior.gap_variance == START.prior.gap_variance
    assert one.weight == START.weight + 1
    failed = observe(START, np.full((3, 3), NAN), "mean", layout="pairs", orders=orders)
    assert failed == START
