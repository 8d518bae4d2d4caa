"""Voting: the paper's example, order does not matter, ties are told, nothing is invented."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_server.grm.types import Draw, Failure, FailureReason, Sample, Trajectory
from grm_server.grm.voting import vote

SCORES = st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[st.integers(1, 10)] * n), min_size=1, max_size=12))


def trajectories(*scores: tuple[int, ...]) -> list[Trajectory]:
    sample = Sample({})
    return [Trajectory(Draw(j, tuple(range(len(s))), j), sample, s) for j, s in enumerate(scores)]


def test_the_papers_figure_3() -> None:
    votes = trajectories((1, 5), (5, 6), (4, 8), (7, 6))
    assert vote(votes).vote_sums == (17, 25)
    assert vote([votes[0], votes[2]]).vote_sums == (5, 13)


def test_rewards_are_means_over_valid_samples_and_failures_are_counted() -> None:
    failure = Failure(Draw(2, (0, 1), 2), FailureReason.WRONG_COUNT)
    verdict = vote(trajectories((1, 5), (2, 6)), [failure, failure])
    assert verdict.rewards == (1.5, 5.5)
    assert verdict.ranking == (1, 0)
    assert verdict.best == 1
    assert verdict.k_valid == 2
    assert verdict.failures == {FailureReason.WRONG_COUNT: 2}


def test_ties_are_groups_in_request_order_best_group_first() -> None:
    verdict = vote(trajectories((3, 9, 3, 9, 5)))
    assert verdict.ranking == (1, 3, 4, 0, 2)
    assert verdict.ties == ((1, 3), (0, 2))


def test_no_sample_no_reward() -> None:
    with pytest.raises(ValueError, match="without a valid sample"):
        vote([])


@given(SCORES)
def test_the_order_of_samples_does_not_matter(scores: list[tuple[int, ...]]) -> None:
    shuffled = random.Random(0).sample(scores, len(scores))
    assert vote(trajectories(*scores)) == vote(trajectories(*shuffled))


@given(SCORES, st.randoms(use_true_random=False))
def test_rewards_move_with_their_responses(scores: list[tuple[int, ...]], rng: random.Random) -> None:
    n = len(scores[0])
    places = rng.sample(range(n), n)
    moved = [tuple(s[i] for i in places) for s in scores]
    assert vote(trajectories(*moved)).rewards == tuple(vote(trajectories(*scores)).rewards[i] for i in places)


@given(SCORES)
def test_rewards_stay_on_the_scale_and_ranking_is_a_permutation(scores: list[tuple[int, ...]]) -> None:
    verdict = vote(trajectories(*scores))
    assert all(1 <= reward <= 10 for reward in verdict.rewards)
    assert sorted(verdict.ranking) == list(range(len(scores[0])))
    sums = [verdict.vote_sums[i] for i in verdict.ranking]
    assert sums == sorted(sums, reverse=True)
