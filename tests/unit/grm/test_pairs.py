"""Winners of pairs: the fit against brute force, symmetry, calibrated errors, and what stopping and voting conclude."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from grm_server.grm.evidence import gather, position_effect
from grm_server.grm.pair_plan import pair_design
from grm_server.grm.pairs import FIRST_VARIANCE, bradley_terry, log_odds_variance, win_rate_variance, win_rates
from grm_server.grm.plan import plan
from grm_server.grm.stopping import Decided, Precision, decide, may_drop, ranking_risks, rival_risks
from grm_server.grm.types import Contenders, Evidence, Floats, Layout, Order, Prior, StopReason, Verdict
from grm_server.grm.voting import vote

PRIOR = Prior(pair_variance=39.0, gap_variance=30.0, score_variance=9.7)
POINTS = (1.0, 10.0)
NAN = float("nan")


def won(orders: list[Order], outcomes: list[float] | Floats, n: int) -> Floats:
    """(m, n) ballots: outcome 1 if the first response of the pair wins."""
    values = np.full((len(orders), n), NAN)
    for j, ((a, b), y) in enumerate(zip(orders, outcomes, strict=True)):
        values[j, a], values[j, b] = 1 + 9 * y, 10 - 9 * y
    return values


def drawn(abilities: Floats, rounds: int, rng: np.random.Generator, first: float = 0.0) -> tuple[list[Order], Floats]:
    orders = list(pair_design(len(abilities), rounds))
    p = expit([abilities[a] - abilities[b] + first for a, b in orders])
    return orders, won(orders, (rng.random(len(orders)) < p).astype(float), len(abilities))


def winners(values: Floats, orders: list[Order], planned: list[Order] | None = None) -> Evidence:
    return gather(values, orders, PRIOR, layout="pairs", planned=planned or [], win_range=POINTS)


def verdict(values: Floats, orders: list[Order], *, shrink: bool = False) -> Verdict:
    return vote(winners(values, orders), [], None, shrink=shrink)


def test_the_mode_agrees_with_a_general_optimiser() -> None:
    rng = np.random.default_rng(0)
    n, gap_variance = 5, 3.0
    pairs = np.array(pair_design(n, 12))
    outcomes = rng.choice([0.0, 1.0], len(pairs))
    fit = bradley_terry(pairs, outcomes, n, gap_variance, 0.2, np.empty((0, 2), dtype=np.intp))

    def loss(x: Floats) -> float:
        eta = x[pairs[:, 0]] - x[pairs[:, 1]] + x[n]
        penalty = (x[:n] ** 2).sum() / gap_variance + x[n] ** 2 / (2 * FIRST_VARIANCE)
        return float((np.logaddexp(0, eta) - outcomes * eta).sum() / fit.dispersion + penalty)

    mode = minimize(loss, np.zeros(n + 1), method="BFGS", options={"gtol": 1e-10}).x[:n]
    # The prior is taken out of the fit; putting it back must give the mode.
    precision = np.linalg.pinv(-0.5 * _centre(n) @ fit.variance @ _centre(n))
    posterior = np.linalg.solve(precision + 2 / gap_variance * np.eye(n), precision @ fit.abilities)
    assert posterior - posterior.mean() == pytest.approx(mode - mode.mean(), abs=1e-4)


def _centre(n: int) -> Floats:
    centre: Floats = np.eye(n) - 1 / n
    return centre


def test_the_variance_of_a_difference_is_that_of_a_logistic_regression() -> None:
    """Two responses, even: n samples have information n / 4."""
    pairs = np.array([(0, 1), (1, 0)] * 8)
    fit = bradley_terry(pairs, np.array([1.0, 1.0, 0.0, 0.0] * 4), 2, 4.0, 0.25, np.array([(0, 1), (1, 0)] * 8))
    assert fit.abilities == pytest.approx([0, 0], abs=1e-6)
    assert fit.dispersion == pytest.approx(1.0, abs=0.15)
    assert fit.variance[0, 1] == pytest.approx(4 / 16 * fit.dispersion, rel=1e-3)
    assert fit.variance_at_k[0, 1] == pytest.approx(4 / 32 * fit.dispersion, rel=1e-3)


@given(
    outcomes=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=20, max_size=20),
    permutation=st.permutations(range(5)),
    shrink=st.booleans(),
)
def test_permuting_responses_permutes_the_verdict(outcomes: list[float], permutation: list[int], shrink: bool) -> None:
    orders = list(pair_design(5, 8))
    values = won(orders, outcomes, 5)
    permuted: list[Order] = [(permutation[a], permutation[b]) for a, b in orders]
    other = verdict(won(permuted, outcomes, 5), permuted, shrink=shrink)
    one = verdict(values, orders, shrink=shrink)
    assert [other.rewards[i] for i in permutation] == pytest.approx(one.rewards, abs=1e-5)
    assert [other.se[i] for i in permutation] == pytest.approx(one.se, abs=1e-5)
    assert all(
        other.p_greater[permutation[a]][permutation[b]] == pytest.approx(one.p_greater[a][b], abs=1e-5)
        for a in range(5)
        for b in range(5)
    )


@given(outcomes=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=20, max_size=20), shrink=st.booleans())
def test_all_numbers_are_within_their_ranges(outcomes: list[float], shrink: bool) -> None:
    one = verdict(won(list(pair_design(5, 8)), outcomes, 5), list(pair_design(5, 8)), shrink=shrink)
    assert all(1 <= reward <= 10 for reward in one.rewards)
    assert all(0 <= se <= 4.5 for se in one.se)
    assert sum(one.rewards) == pytest.approx(5 * 5.5, abs=1e-4)
    assert sum(one.p_best) == pytest.approx(1)


@given(outcomes=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=20, max_size=20))
def test_exchanging_winners_and_losers_reverses_the_verdict(outcomes: list[float]) -> None:
    orders = list(pair_design(5, 8))
    one = verdict(won(orders, outcomes, 5), orders)
    other = verdict(won(orders, [1 - y for y in outcomes], 5), orders)
    assert [11 - reward for reward in other.rewards] == pytest.approx(one.rewards, abs=1e-4)


@pytest.mark.parametrize("wins", [4, 8, 10, 13])
def test_two_responses_are_judged_as_in_a_list(wins: int) -> None:
    """The fit of two responses must give the share of wins, which is what a list gives."""
    orders: list[Order] = [(0, 1), (1, 0)] * 8
    outcomes = [float((j < wins) == (order == (0, 1))) for j, order in enumerate(orders)]
    values = won(orders, outcomes, 2)
    pairs, lists = verdict(values, orders), vote(gather(values, orders, PRIOR), [], None, shrink=False)
    assert lists.rewards[0] == pytest.approx(1 + 9 * wins / 16)
    assert pairs.rewards == pytest.approx(lists.rewards, abs=0.25)
    assert pairs.se == pytest.approx(lists.se, rel=0.25)
    assert pairs.p_greater[0][1] == pytest.approx(lists.p_greater[0][1], abs=0.04)
    assert pairs.ranking == lists.ranking


def test_a_round_robin_gives_each_response_its_share_of_wins() -> None:
    """The likelihood equations of Bradley and Terry; the prior is out of the way."""
    rng = np.random.default_rng(2)
    orders, values = drawn(rng.normal(0, 0.7, 5), 40, rng)
    assert verdict(values, orders).rewards == pytest.approx(np.nanmean(values, axis=0), abs=0.1)


def test_a_response_that_wins_every_sample_has_a_finite_lead_and_an_error() -> None:
    orders = list(pair_design(3, 4))
    one = verdict(won(orders, [1.0 if a < b else 0.0 for a, b in orders], 3), orders)
    assert one.ranking == (0, 1, 2)
    assert 8.5 < one.rewards[0] < 10
    assert 0.1 < one.se[0] < 3
    assert 0.7 < one.p_best[0] < 0.99


def test_ties_and_weak_preferences_are_less_noisy_than_wins() -> None:
    orders = list(pair_design(4, 12))
    even = [0.0, 1.0, 1.0, 0.0]
    of_wins = winners(won(orders, [even[j % 4] for j in range(24)], 4), orders)
    of_ties = winners(won(orders, [0.5] * 24, 4), orders)
    assert of_ties.pair_variance[0, 1] < 0.3 * of_wins.pair_variance[0, 1]
    assert of_ties.pairs[0, 1] == pytest.approx(of_wins.pairs[0, 1], rel=0.15)


@pytest.mark.no_cover
@pytest.mark.parametrize("first", [0.0, 1.5])
def test_errors_match_the_simulated_errors(first: float) -> None:
    """Rewards cover the true win rates, and p_greater is calibrated, whatever the first position is worth."""
    rng = np.random.default_rng(3)
    covered, claimed, right = [], [], []
    for _ in range(250):
        abilities = rng.normal(0, 1.3, 6)
        orders, values = drawn(abilities, 12, rng, first)
        one = verdict(values, orders)
        true = win_rates(abilities)
        covered.append(np.abs(np.array(one.rewards) - 1 - 9 * true) < 1.645 * np.array(one.se))
        a, b = one.ranking[0], one.ranking[1]
        claimed.append(one.p_greater[a][b])
        right.append(abilities[a] > abilities[b])
    assert np.mean(covered) == pytest.approx(0.9, abs=0.05)
    assert np.mean(claimed) == pytest.approx(np.mean(right), abs=0.06)


@pytest.mark.no_cover
def test_the_predicted_risk_matches_the_rate_at_which_full_k_decides_otherwise() -> None:
    rng = np.random.default_rng(4)
    risks, changed = [], []
    for _ in range(300):
        orders, values = drawn(rng.normal(0, 1.4, 6), 16, rng, 0.5)
        early = winners(values[:24], orders[:24], orders[24:])
        risks.append(min(1.0, rival_risks(early, 1.0, range(6)).sum()))
        changed.append(np.argmax(early.means) != np.argmax(winners(values, orders).means))
    likely = np.array(risks) < 0.3
    assert likely.sum() > 60
    assert np.mean(np.array(changed)[likely]) == pytest.approx(np.mean(np.array(risks)[likely]), abs=0.05)


def test_planned_pairs_raise_the_risk_by_what_they_will_tell() -> None:
    rng = np.random.default_rng(5)
    orders, values = drawn(np.array([1.5, 0.5, 0.0, -1.0]), 8, rng)
    none = winners(values, orders)
    some, many = winners(values, orders, orders), winners(values, orders, orders * 8)
    assert none.pairs_at_k is not None
    assert some.pairs_at_k is not None
    assert none.pairs_at_k[0, 1] == pytest.approx(none.pairs[0, 1])
    assert some.pairs_at_k[0, 1] == pytest.approx(2 * some.pairs[0, 1], rel=1e-3)
    risks = [rival_risks(e, 1.0, range(4)).sum() for e in (none, some, many)]
    assert risks[0] < risks[1] < risks[2]
    assert ranking_risks(some, 1.0).shape == (3,)


def test_pairs_that_no_chain_connects_cannot_be_compared() -> None:
    orders: list[Order] = [(0, 1), (1, 0), (2, 3), (3, 2)] * 2
    evidence = winners(won(orders, [1, 0, 1, 0] * 2, 4), orders)
    assert evidence.pairs[0, 1] > 1
    assert evidence.pairs[0, 2] < 1e-3
    one = vote(evidence, [], None, shrink=False)
    assert one.p_greater[0][2] == pytest.approx(0.5, abs=0.1)
    assert max(one.se) <= 4.5


def test_a_response_that_was_not_shown_has_no_ability() -> None:
    orders: list[Order] = [(0, 1), (1, 0), (1, 2)]
    values = won(orders, [1, 0, 1], 3)
    values[2] = NAN
    evidence = winners(values, orders)
    assert np.isnan(evidence.means[2])
    assert (evidence.launched, evidence.valid) == (3, 2)
    assert evidence.shown.tolist() == [2, 2, 0]
    with pytest.raises(ValueError, match="no valid sample"):
        vote(evidence, [], None, shrink=False)
    nothing = winners(np.full((3, 3), NAN), orders)
    assert np.isnan(nothing.means).all()


def test_shrinking_moves_rewards_to_the_middle() -> None:
    orders = list(pair_design(4, 4))
    values = won(orders, [1.0 if a < b else 0.0 for a, b in orders], 4)
    plain, shrunk = verdict(values, orders), verdict(values, orders, shrink=True)
    assert shrunk.ranking == plain.ranking
    assert 5.5 < shrunk.rewards[0] < plain.rewards[0]
    assert shrunk.p_greater == plain.p_greater


def test_losers_are_dropped_from_three_responses_on_one_at_a_time() -> None:
    rule = Decided(0.05)
    assert [may_drop(rule, n, "mean", "pairs") for n in (2, 3)] == [False, True]
    assert [may_drop(rule, n, "mean", "singles") for n in (2, 3)] == [False, True]
    assert not may_drop(rule, 8, "vote", "pairs")
    rng = np.random.default_rng(6)
    orders, values = drawn(np.array([1.0, 0.9, 0.8, 0.7, 0.9, -6.0]), 16, rng)
    evidence = winners(values, orders, orders)
    everyone = Contenders(tuple(range(6)))
    active: dict[Layout, int] = {"pairs": 5, "lists": 6}
    for layout, expected in active.items():
        decision = decide(rule, evidence, values, 16, 32, everyone, ballot_range=9.0, droppable=True, layout=layout)
        assert len(decision.contenders.active) == expected


def test_precision_is_in_points_of_the_reward() -> None:
    orders, values = drawn(np.zeros(4), 16, np.random.default_rng(7))
    evidence = winners(values, orders)
    worst = max(vote(evidence, [], None, shrink=False).se)
    for se, stop in ((worst + 1e-6, StopReason.PRECISION), (worst - 1e-6, None)):
        decision = decide(
            Precision(se), evidence, values, 16, 32, Contenders((0, 1, 2, 3)), ballot_range=9.0, droppable=False
        )
        assert decision.stop is stop


def test_how_much_the_first_position_wins() -> None:
    orders = list(pair_design(4, 12))
    effect = position_effect(won(orders, [1.0] * 24, 4), orders, np.zeros(4))
    assert effect is not None
    assert effect.tolist() == [4.5, -4.5]
    half = position_effect(won(orders, [1.0, 0.0] * 12, 4), orders, np.zeros(4))
    assert half is not None
    assert half.tolist() == [0, 0]


def test_shares_instead_of_points() -> None:
    orders, values = drawn(np.array([1.0, 0.0, -1.0]), 8, np.random.default_rng(8))
    shares = gather((values - 1) / 9, orders, Prior(39 / 81, 30 / 81, 0.1), layout="pairs", win_range=(0.0, 1.0))
    points = verdict(values, orders)
    assert vote(shares, [], None, shrink=False).rewards == pytest.approx(
        [(reward - 1) / 9 for reward in points.rewards], abs=1e-5
    )


def test_the_prior_in_log_odds_has_the_variance_of_the_prior_in_points() -> None:
    rng = np.random.default_rng(9)
    for share in (0.05, 0.3, 0.7):
        gaps = rng.normal(0, np.sqrt(log_odds_variance(share)), 200_000)
        assert np.mean((2 * expit(gaps) - 1) ** 2) == pytest.approx(share, rel=0.02)


def test_win_rates_by_hand() -> None:
    abilities, p = np.array([1.0, 0.0]), expit(1.0)
    variance = win_rate_variance(abilities, np.array([[0.0, 0.3], [0.3, 0.0]]))
    assert win_rates(abilities) == pytest.approx([p, 1 - p])
    assert variance == pytest.approx([(p * (1 - p)) ** 2 * 0.3] * 2)


@pytest.mark.no_cover
def test_scored_pairs_have_correct_errors_and_no_position_in_the_noise() -> None:
    rng = np.random.default_rng(10)
    n, sigma = 8, 1.2
    orders = list(pair_design(n, 12))
    prior = Prior(2 * sigma**2, 4.0, sigma**2 + 1)
    errors, reported, noise = [], [], []
    for _ in range(200):
        values = np.full((len(orders), n), NAN)
        for j, order in enumerate(orders):
            values[j, list(order)] = rng.normal(0, sigma, 2) + rng.normal() + [3.0, -3.0]
        evidence = gather(values, orders, prior, layout="pairs", planned=orders)
        errors.append(evidence.means[0] - evidence.means[5])
        reported.append(evidence.pair_variance[0, 5] / evidence.pairs[0, 5])
        noise.append(evidence.pair_variance[0, 5])
        assert evidence.pairs_at_k is not None
        assert evidence.pairs_at_k[0, 5] / evidence.pairs[0, 5] == pytest.approx(2, rel=1e-3)
    assert np.mean(noise) == pytest.approx(2 * sigma**2, rel=0.05)
    assert np.var(errors) == pytest.approx(np.mean(reported), rel=0.25)


def test_scored_pairs_of_exact_scores() -> None:
    orders = list(pair_design(4, 4))
    truth = np.array([2.0, 4.0, 5.0, 9.0])
    values = np.full((len(orders), 4), NAN)
    for j, order in enumerate(orders):
        values[j, list(order)] = truth[list(order)] + [1.0, -1.0]
    evidence = gather(values, orders, Prior(1.0, 4.0, 1.0), layout="pairs")
    assert np.diff(evidence.means) == pytest.approx(np.diff(truth), abs=1e-5)
    one, early = (vote(evidence, [], None, shrink=shrink) for shrink in (False, True))
    assert one.ranking == early.ranking == (3, 2, 1, 0)
    # A ring tells less of a difference than as many lists, so the posterior moves further.
    lists = vote(
        gather(np.tile(truth, (4, 1)), [d.order for d in plan(range(4), 4, 0)], Prior(1.0, 4.0, 1.0)),
        [],
        None,
        shrink=True,
    )
    assert early.rewards[3] - early.rewards[0] < lists.rewards[3] - lists.rewards[0] < 7


def test_more_than_a_win_counts_as_a_win() -> None:
    """The weights of `meta_hinge` stretch ballots beyond those of a winner and a loser."""
    orders = list(pair_design(3, 8))
    outcomes = np.array([1.0 if a < b else 0.0 for a, b in orders])
    stretched = won(orders, 0.5 + 1.8 * (outcomes - 0.5), 3)
    assert verdict(stretched, orders).rewards == verdict(won(orders, outcomes, 3), orders).rewards
