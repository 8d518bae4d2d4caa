"""The vote under a meta RM: the paper's example, and what weights must and must not change."""

import numpy as np
import pytest

from grm_server.grm.evidence import gather
from grm_server.grm.meta import MIN_WEIGHT, guide, hinge, hinge_weights, top
from grm_server.grm.stopping import proven
from grm_server.grm.types import Prior

NAN = float("nan")
FIGURE_3 = np.array([[1.0, 5], [5, 6], [4, 8], [7, 6]])
PRIOR = Prior(pair_variance=2.4, gap_variance=3.9, score_variance=1.6)


def test_the_papers_example() -> None:
    """Liu et al. 2025, figure 3: the four samples sum to (17, 25), the 1st and 3rd alone to (5, 13)."""
    assert FIGURE_3.sum(axis=0).tolist() == [17, 25]
    guided = guide(FIGURE_3, [0.9, 0.2, 0.8, 0.1], "meta_top", p0=0.5, k_meta=2, k=4)
    assert np.nansum(guided.values, axis=0).tolist() == [5, 13]
    assert guided.votes.tolist() == [True, False, True, False]


def test_ties_are_kept_in_launch_order() -> None:
    assert top(FIGURE_3, np.array([0.5, 0.5, 0.5, 0.5]), 2, 4).votes.tolist() == [True, True, False, False]
    assert top(FIGURE_3, np.array([0.5, 0.7, 0.5, 0.5]), 2, 4).votes.tolist() == [True, True, False, False]


@pytest.mark.parametrize(("k_meta", "votes"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_the_kept_share_stays_the_same_with_fewer_samples(k_meta: int, votes: int) -> None:
    scores = np.array([[NAN, NAN], [5, 6], [4, 8], [NAN, NAN]])
    guided = top(scores, np.array([NAN, 0.1, 0.9, NAN]), k_meta, 4)
    assert guided.votes.sum() == votes
    assert not guided.votes[[0, 3]].any()
    assert np.isinf(guided.range)


def test_every_block_keeps_a_vote() -> None:
    """Although the two best samples show the same two responses."""
    scores = np.array([[7.0, 5, NAN, NAN], [NAN, NAN, 3, 4], [6, 5, NAN, NAN], [NAN, NAN, 2, 9]])
    p = np.array([0.9, 0.1, 0.8, 0.2])
    assert top(scores, p, 1, 2).votes.tolist() == [True, False, True, True]
    assert top(scores, p, 1, 2, min_votes=2).votes.tolist() == [True, True, True, True]
    assert top(scores, np.array([0.9, 0.1, 0.2, 0.8]), 1, 2).votes.tolist() == [True, False, False, True]


def test_failed_samples_add_no_votes() -> None:
    scores = np.array([[7.0, 5], [NAN, NAN], [6, 5], [NAN, NAN]])
    assert top(scores, np.array([0.9, NAN, 0.8, NAN]), 2, 4, min_votes=2).votes.tolist() == [True, False, False, False]


def test_the_mean_ballot_is_the_weighted_mean() -> None:
    p = np.array([0.9, 0.6, 0.3, 0.75])
    weights = np.array([0.8, 0.2, MIN_WEIGHT, 0.5])
    assert hinge_weights(p, 0.5) == pytest.approx(weights)
    guided = hinge(FIGURE_3, p, 0.5, 9.0)
    expected = (weights[:, None] * FIGURE_3).sum(axis=0) / weights.sum()
    assert guided.values.mean(axis=0) == pytest.approx(expected)
    assert guided.votes.tolist() == [True, True, False, True]


def test_differences_within_a_sample_are_weighted() -> None:
    p = np.array([0.9, 0.6, 0.3, 0.75])
    guided = hinge(FIGURE_3, p, 0.5, 9.0)
    weights = hinge_weights(p, 0.5)
    differences = guided.values[:, 0] - guided.values[:, 1]
    assert differences == pytest.approx(weights / weights.mean() * (FIGURE_3[:, 0] - FIGURE_3[:, 1]))


def test_a_constant_meta_rm_changes_nothing() -> None:
    for p in (0.2, 0.5, 0.8):
        guided = hinge(FIGURE_3, np.full(4, p), 0.5, 9.0)
        assert guided.values == pytest.approx(FIGURE_3)
        assert guided.votes.all()


def test_the_weight_is_zero_up_to_p0() -> None:
    assert hinge_weights(np.array([0.2, 0.25, 0.625, 1.0, NAN]), 0.25) == pytest.approx(
        [MIN_WEIGHT, MIN_WEIGHT, 0.5, 1.0, NAN], nan_ok=True
    )
    assert hinge_weights(np.array([0.3]), 0.0) == pytest.approx([0.3])


def test_samples_without_scores_have_no_ballot_and_no_weight() -> None:
    scores = np.vstack([FIGURE_3, [[NAN, NAN]]])
    guided = hinge(scores, np.array([0.9, 0.6, 0.3, 0.75, NAN]), 0.5, 9.0)
    assert np.isnan(guided.values[4]).all()
    assert guided.values[:4] == pytest.approx(hinge(FIGURE_3, np.array([0.9, 0.6, 0.3, 0.75]), 0.5, 9.0).values)
    assert not guided.votes[4]
    nothing = hinge(np.full((2, 2), NAN), np.full(2, NAN), 0.5, 9.0)
    assert not nothing.votes.any()


def test_mean_variance_matches_the_error_of_the_weighted_mean() -> None:
    """Compared with the spread of the weighted mean over many requests with the same truth."""
    rng = np.random.default_rng(0)
    m, requests = 24, 3000
    means, variances = [], []
    for _ in range(requests):
        scores = np.column_stack([rng.normal(7, 1.5, m), rng.normal(4, 1.5, m)])
        guided = hinge(scores, rng.uniform(0.3, 1.0, m), 0.5, 9.0)
        evidence = gather(guided.values, [(0, 1), (1, 0)] * (m // 2), PRIOR)
        means.append(evidence.means)
        variances.append(evidence.mean_variance)
    observed = np.var(means, axis=0)
    # Scores far from the common level vary with the weights as well, so the estimate is slightly conservative.
    ratio = np.mean(variances, axis=0) / observed
    assert ((ratio > 0.9) & (ratio < 1.6)).all()


def test_blocks_keep_the_weighted_differences() -> None:
    scores = np.array([[7.0, 5, NAN], [NAN, 5, 3], [8, NAN, 4]])
    guided = hinge(scores, np.array([1.0, 0.75, 0.75]), 0.5, 9.0)
    assert np.isnan(guided.values).tolist() == np.isnan(scores).tolist()
    assert guided.values[0, 0] - guided.values[0, 1] == pytest.approx(2 * 1.0 / (2 / 3))


@pytest.mark.no_cover
def test_strict_is_strict_on_weighted_votes() -> None:
    """On hinge-weighted ballots, too, the winner differs from that at full k with probability delta at most."""
    rng = np.random.default_rng(1)
    k, wrong, stopped = 16, 0, 0
    for _ in range(1500):
        scores = rng.integers(1, 11, (k, 2)).astype(float)
        p = rng.uniform(0.4, 1.0, k)
        final = hinge(scores, p, 0.5, 9.0).values.sum(axis=0)
        for m in range(2, k, 2):
            guided = hinge(scores[:m], p[:m], 0.5, 9.0)
            if proven(guided.values, k, guided.range, 0.2):
                stopped += 1
                wrong += final.argmax() != guided.values.sum(axis=0).argmax()
                break
    assert stopped > 50
    assert wrong / 1500 <= 0.2
    d = scores[:, [0]] - scores[:, [1]]
    weights = hinge_weights(p, 0.5)[:, None]
    assert np.abs(weights * d).max() <= 9.0
    assert np.abs(np.diff(hinge(scores, p, 0.5, 9.0).values)).max() <= hinge(scores, p, 0.5, 9.0).range
