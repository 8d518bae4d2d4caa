"""When to stop: formulas against hand calculation, guarantees against populations built to break them."""

import numpy as np
import pytest
from scipy.stats import t as student

from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.evidence import gather
from grm_server.grm.stopping import (
    Decided,
    Fixed,
    Precision,
    StopRule,
    Strict,
    decide,
    may_drop,
    proven,
    ranking_risks,
    rival_risks,
)
from grm_server.grm.types import Aggregate, Contenders, Decision, Floats, Prior, StopReason

PRIOR = Prior(pair_variance=2.4, gap_variance=3.9, score_variance=1.6)


def decision(
    rule: StopRule,
    scores: object,
    k: int,
    contenders: Contenders | None = None,
    aggregate: Aggregate = "mean",
    min_votes: int = 1,
) -> Decision:
    values = np.array(scores, dtype=float)
    m, n = values.shape
    evidence = gather(values, [tuple(range(n))] * m, PRIOR)
    return decide(
        rule,
        evidence,
        values,
        m,
        k,
        contenders or Contenders(tuple(range(n))),
        ballot_range=AGGREGATES[aggregate].ballot_range,
        droppable=may_drop(rule, n, aggregate),
        min_votes=min_votes,
    )


def test_the_risk_matches_the_formula() -> None:
    d = np.array([3.0, 1.0, 2.0, 4.0, 0.0, 2.0])
    values = np.column_stack([5 + d, np.full(6, 5.0)])
    m = t = 6
    k = 20
    r = (k - m) * (t + 9) / (m + 10)
    s2 = (((d - d.mean()) ** 2).sum() + 3 * PRIOR.pair_variance) / (t - 1 + 3)
    v = 1 / (t / s2 + 1 / PRIOR.gap_variance)
    mu = v * d.sum() / s2
    z = (d.sum() + r * mu) / np.sqrt(r * s2 + r**2 * v)
    expected = student.cdf(-z, t - 1 + 3)
    evidence = gather(values, [(0, 1)] * m, PRIOR)
    assert rival_risks(evidence, (k - m) / m, (0, 1)) == pytest.approx([0, expected], rel=1e-5)
    assert decision(Decided(0.05), values, k).risk == pytest.approx(expected, rel=1e-5)


def test_failures_are_expected_at_the_observed_rate() -> None:
    nan = float("nan")
    values = np.array([[6.0, 5.0], [7.0, 5.0], [nan, nan], [6.0, 4.0]] * 2)
    evidence = gather(values, [(0, 1)] * 8, PRIOR)
    m, t, k = 8, 6, 16
    d = np.array([1.0, 2.0, 2.0] * 2)
    r = (k - m) * (t + 9) / (m + 10)
    s2 = (((d - d.mean()) ** 2).sum() + 3 * PRIOR.pair_variance) / (t - 1 + 3)
    v = 1 / (t / s2 + 1 / PRIOR.gap_variance)
    z = (d.sum() + r * v * d.sum() / s2) / np.sqrt(r * s2 + r**2 * v)
    assert rival_risks(evidence, 1.0, (0, 1))[1] == pytest.approx(student.cdf(-z, t - 1 + 3), rel=1e-5)


def test_a_clear_winner_is_decided_and_a_close_race_goes_on() -> None:
    assert decision(Decided(0.05), [[9, 2], [8, 3], [9, 3], [8, 2]], 16).stop is StopReason.DECIDED
    close = decision(Decided(0.05), [[6, 5], [5, 6], [6, 6], [5, 5]], 16)
    assert close.stop is None
    assert close.risk > 0.3


def test_at_full_k_there_is_no_risk_left() -> None:
    for rule in (Fixed(), Decided(0.05), Decided(0.05, "ranking"), Strict(0.05), Precision(0.01)):
        full = decision(rule, [[6, 5], [5, 6], [6, 6], [5, 5]], 4)
        assert full.stop is StopReason.FULL_K
        assert full.risk == 0


def test_a_ranking_takes_longer_to_decide_than_the_best_response() -> None:
    scores = [[9, 5, 4], [9, 4, 5], [8, 5, 4], [9, 5, 5]] * 2
    assert decision(Decided(0.05), scores, 16).stop is StopReason.DECIDED
    whole = decision(Decided(0.05, target="ranking"), scores, 16)
    assert whole.stop is None
    evidence = gather(np.array(scores, float), [(0, 1, 2)] * 8, PRIOR)
    assert whole.risk == pytest.approx(ranking_risks(evidence, 1.0).sum())


def test_a_single_response_gets_all_k_samples_unless_the_rule_is_precision() -> None:
    scores = [[7], [7], [7], [7], [7], [7], [7], [7]]
    assert decision(Decided(0.05), scores, 16).stop is None
    assert decision(Strict(0.05), scores, 16).stop is None
    assert decision(Precision(0.4), scores, 16).stop is StopReason.PRECISION
    assert decision(Precision(0.1), scores, 16).stop is None


def test_precision_is_the_shrunk_standard_error_of_the_noisiest_response() -> None:
    scores = np.array([[5, 1], [5, 9], [5, 1], [5, 9]], float)
    variance = (((scores[:, 1] - 5) ** 2).sum() + 3 * PRIOR.score_variance) / (3 + 3)
    se = float(np.sqrt(variance / 4))
    assert decision(Precision(se + 1e-6), scores, 16).stop is StopReason.PRECISION
    assert decision(Precision(se - 1e-6), scores, 16).stop is None


def test_losers_are_dropped_from_six_responses_on() -> None:
    row = [8, 7, 2, 1, 2, 1]
    scores = [row, [7, 8, 1, 2, 1, 2], [8, 7, 2, 2, 1, 1], [7, 7, 1, 1, 2, 2]] * 2
    after = decision(Decided(0.05), scores, 32)
    assert after.stop is None
    assert after.contenders.active == (0, 1)
    assert 0 < after.contenders.risk_spent <= 0.025
    # The risk of having dropped a response stays in the total.
    later = decision(Decided(0.05), scores, 32, Contenders((0, 1), 0.02))
    assert later.risk == pytest.approx(decision(Decided(0.05), scores, 32, Contenders((0, 1))).risk + 0.02)
    five = decision(Decided(0.05), [r[:5] for r in scores], 32)
    assert five.contenders.active == (0, 1, 2, 3, 4)
    ranking = decision(Decided(0.05, target="ranking"), scores, 32)
    assert ranking.contenders.active == (0, 1, 2, 3, 4, 5)
    # A vote depends on the other responses in the list.
    for aggregate in ("vote", "borda"):
        assert len(decision(Decided(0.05), scores, 32, aggregate=aggregate).contenders.active) == 6


def test_dropping_spends_at_most_half_of_gamma() -> None:
    scores = [[8, 7, 4, 4, 4, 4], [7, 8, 4, 5, 4, 4], [8, 7, 3, 4, 5, 4], [7, 7, 4, 4, 4, 5]]
    for gamma in (0.02, 0.05, 0.1, 0.2, 0.4):
        after = decision(Decided(gamma), scores, 32)
        assert after.contenders.risk_spent <= gamma / 2
    evidence = gather(np.array(scores, float), [tuple(range(6))] * 4, PRIOR)
    losers = np.sort(rival_risks(evidence, 7.0, range(6)))[1:5]
    # The risks of all four losers fit into gamma, but not into half of it.
    gamma = float(losers.sum()) * 1.2
    assert len(decision(Decided(gamma), scores, 32).contenders.active) > 2


def test_the_leader_is_never_dropped() -> None:
    """Risks that underflow to 0 must not be mistaken for the leader's."""
    noiseless = Prior(1e-9, 3.0, 1e-9)
    values = np.full((8, 8), 2.0)
    values[:, 6:] = 9.0
    evidence = gather(values, [tuple(range(8))] * 8, noiseless)
    after = decide(
        Decided(1e-6), evidence, values, 8, 16, Contenders(tuple(range(8))), ballot_range=9.0, droppable=True
    )
    assert set(after.contenders.active) >= {6}
    assert 0 not in after.contenders.active


def test_no_stop_and_no_drop_before_min_votes() -> None:
    clear = [[9, 2]] * 4
    for rule in (Decided(0.05), Precision(2.0), Strict(0.9)):
        assert decision(rule, clear, 16, min_votes=4).stop is not None
        assert decision(rule, clear, 16, min_votes=5).stop is None
    row = [8, 8, 2, 1, 2, 1]
    assert len(decision(Decided(0.05), [row] * 8, 32, min_votes=8).contenders.active) == 2
    assert len(decision(Decided(0.05), [row] * 8, 32, min_votes=9).contenders.active) == 6


def test_a_single_loser_among_many_is_not_dropped() -> None:
    scores = [[8, 8, 8, 8, 8, 8, 8, 1], [7, 8, 8, 8, 8, 8, 8, 1]] * 4
    assert len(decision(Decided(0.05), scores, 32).contenders.active) == 8


def adversarial(*parts: tuple[int, float]) -> Floats:
    """Differences of response 0 minus response 1, as (count, size)."""
    d = np.concatenate([np.full(count, size) for count, size in parts])
    return np.column_stack([np.maximum(d, 0) + 1, np.maximum(-d, 0) + 1])


@pytest.mark.parametrize(
    "population",
    [
        adversarial((26, 2.0), (6, -9.0)),
        adversarial((28, 1.0), (4, -7.0)),
        adversarial((16, 1.0), (16, -1.0)),
        adversarial((16, 9.0), (16, -9.0)),
    ],
)
@pytest.mark.parametrize("delta", [0.05, 0.2])
def test_strict_names_another_winner_with_probability_delta_at_most(population: Floats, delta: float) -> None:
    rng = np.random.default_rng(5)
    k, runs = len(population), 400
    sums = population.sum(axis=0)
    wrong = 0
    for _ in range(runs):
        drawn = population[rng.permutation(k)]
        for m in range(4, k, 4):
            if proven(drawn[:m], k, AGGREGATES["mean"].ballot_range, delta):
                leader = int(np.argmax(drawn[:m].sum(axis=0)))
                wrong += sums[leader] <= sums[1 - leader]
                break
    # 400 runs with error rate delta exceed this bound once in a thousand times.
    assert wrong / runs <= delta + 3.1 * np.sqrt(delta * (1 - delta) / runs)


def test_strict_stops_once_the_remaining_samples_cannot_change_the_winner() -> None:
    values = np.array([[10.0, 1.0]] * 17 + [[1.0, 1.0]] * 15)
    assert not proven(values[:4], 32, 9.0, 1e-9)
    # 15 samples cannot take back 17 leads of 9, whatever delta is.
    assert proven(values[:17], 32, 9.0, 1e-9)


def test_strict_needs_every_rival_beaten_and_failures_count_as_no_difference() -> None:
    nan = float("nan")
    clear = np.array([[9.0, 2.0, 2.0]] * 20)
    assert proven(clear, 32, 9.0, 0.05)
    assert not proven(np.array([[9.0, 2.0, 9.0]] * 20), 32, 9.0, 0.05)
    with_failures = clear.copy()
    with_failures[::2] = nan
    assert not proven(with_failures[:12], 32, 9.0, 0.05)


def test_strict_through_decide() -> None:
    assert decision(Strict(0.05), [[9, 2]] * 16, 24).stop is StopReason.STRICT
    assert decision(Strict(0.05), [[6, 5]] * 8, 24).stop is None


def test_the_wealth_of_the_bettor_is_a_supermartingale_at_the_boundary() -> None:
    """Differences that sum to 0: the mean wealth over all orders must not exceed 1. Few enough to try all orders."""
    from itertools import permutations

    d = [3.0, 1.0, 1.0, -2.0, -3.0]
    orders = list(permutations(d))
    for m in range(1, len(d)):
        # Ville: P(wealth >= 1/alpha) <= alpha for every alpha, so at most a share alpha of the orders may be proven.
        for alpha in (0.1, 0.3, 0.5, 0.9):
            claims = 0
            for order in orders:
                steps = np.array(order[:m])
                if steps.sum() > 0:
                    claims += proven(np.column_stack([steps, np.zeros(m)]), len(d), 3.0, alpha)
            assert claims / len(orders) <= alpha


def test_without_any_score_the_request_goes_on() -> None:
    nan = float("nan")
    for rule in (Decided(0.5), Strict(0.5), Precision(5.0)):
        assert decision(rule, [[nan, nan]] * 4, 16).stop is None
