"""Fit the abilities of responses to the winners of pairs (Bradley & Terry 1952), and predict win rates from them.

A sample of the ordered pair (a, b) has an outcome y: 1 if a wins, 0 if b wins, 0.5 for a tie, or any share between for
a graded preference. Its mean is p = sigma(ability_a - ability_b + first), where `first` is what the first position is
worth. Outcomes that are not all 0 or 1 vary less than p (1 - p); the fit estimates by how much (quasi-likelihood,
Wedderburn 1974).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.special import expit

from grm_server.grm.types import Evidence, Floats, Ints, Order, Prior

FIRST_VARIANCE = 4.0
"""Prior variance of what the first position is worth, in squared log-odds. It is weak."""
PRIOR_FREEDOM = 3.0
"""The prior's outcome variance weighs as much as this many degrees of freedom."""
MAX_STEP = 1.0
"""Largest change of one ability in a Newton step, which keeps the iteration stable."""
MAX_STEPS, TOLERANCE = 100, 1e-9
# Responses that no chain of pairs connects have no common scale. This ridge gives their difference a finite, very large
# variance.
_RIDGE = 1e-6


def winner_evidence(
    values: Floats, orders: Sequence[Order], prior: Prior, planned: Sequence[Order], win_range: tuple[float, float]
) -> Evidence:
    """The evidence of the winners of pairs, see `evidence.gather`.

    A response's mean ballot depends on whom it met, so `means` are abilities. Rewards are win rates against the other
    responses, and `mean_variance` is theirs. `pairs` counts even comparisons: one tells a difference of abilities with
    variance 4.
    """
    seen = ~np.isnan(values)
    n, span = values.shape[1], win_range[1] - win_range[0]
    valid = np.flatnonzero(seen.any(axis=1)).tolist()
    pairs = np.array([orders[j] for j in valid], dtype=np.intp).reshape(-1, 2)
    # A meta RM's weight above the mean would make more than a win of one; no probability explains that.
    outcomes = np.clip(0.5 + (values[valid, pairs[:, 0]] - values[valid, pairs[:, 1]]) / (2 * span), 0.0, 1.0)
    in_log_odds = replace(prior, gap_variance=log_odds_variance(prior.gap_variance / span**2))
    fit = bradley_terry(
        pairs,
        outcomes,
        n,
        in_log_odds.gap_variance,
        prior.pair_variance / (2 * span) ** 2,
        np.array(planned, dtype=np.intp).reshape(-1, 2),
    )
    rate_variance = win_rate_variance(fit.mode, fit.variance)
    pair_variance = np.full((n, n), 4 * fit.dispersion)
    np.fill_diagonal(pair_variance, 0.0)
    shown = seen.sum(axis=0).astype(float)
    return Evidence(
        launched=len(values),
        valid=len(valid),
        means=np.where(shown > 0, fit.abilities, np.nan),
        shown=shown,
        mean_variance=rate_variance * span**2,
        pairs=4 * fit.dispersion / np.maximum(fit.variance, 1e-12),
        pair_variance=pair_variance,
        freedom=np.full((n, n), fit.freedom + PRIOR_FREEDOM),
        prior=in_log_odds,
        pairs_at_k=4 * fit.dispersion / np.maximum(fit.variance_at_k, 1e-12),
        win_range=win_range,
    )


@dataclass(frozen=True, slots=True, eq=False)
class PairFit:
    """A Gaussian approximation of the likelihood at the posterior mode (Laplace)."""

    abilities: Floats
    """(n,), the centre of the likelihood, without the prior: combining it with the prior gives the mode."""
    mode: Floats
    """(n,), shrunk abilities."""
    variance: Floats
    """(n, n), of each difference of `abilities`."""
    variance_at_k: Floats
    """(n, n), the same after the planned pairs too."""
    dispersion: float
    """Variance of an outcome as a share of p (1 - p)."""
    freedom: float
    """Degrees of freedom of `dispersion`, without the prior's."""


def bradley_terry(
    pairs: Ints, outcomes: Floats, n: int, gap_variance: float, outcome_variance: float, planned: Ints
) -> PairFit:
    """The abilities of n responses.

    pairs: (m, 2), first and second response. outcomes: (m,). planned: (r, 2), pairs still to come.
    gap_variance: prior variance of the difference of two abilities. outcome_variance: prior variance of an outcome.

    We find the mode under the prior, where log-odds are finite even if a response wins every sample, and then take the
    prior out again: `stopping` and `voting` apply it to each difference.
    """
    design = _design(pairs, n)
    prior = np.diag([2 / gap_variance] * n + [1 / FIRST_VARIANCE])
    dispersion, freedom = 1.0, 0.0
    mode = np.zeros(n + 1)
    for _ in range(2):
        mode = _mode(design, outcomes, prior, dispersion, mode)
        dispersion, freedom = _dispersion(design, outcomes, prior, dispersion, mode, outcome_variance)
    mode = _mode(design, outcomes, prior, dispersion, mode)
    # The position keeps its prior: it is no part of a difference.
    kept = np.diag([_RIDGE] * n + [1 / FIRST_VARIANCE])
    information = kept + _information(design, mode) / dispersion
    covariance = np.linalg.inv(information).astype(np.float64)
    abilities = (mode + covariance @ np.append(prior.diagonal()[:n] * mode[:n], 0.0))[:n]
    at_k = np.linalg.inv(information + _information(_design(planned, n), mode) / dispersion).astype(np.float64)
    return PairFit(
        abilities, mode[:n], _of_differences(covariance[:n, :n]), _of_differences(at_k[:n, :n]), dispersion, freedom
    )


def win_rates(abilities: Floats) -> Floats:
    """(n,) each response's mean probability to win against the others."""
    wins = expit(abilities[:, None] - abilities[None, :])
    rates: Floats = (wins.sum(axis=1) - 0.5) / (len(abilities) - 1)
    return rates


def win_rate_variance(abilities: Floats, variance: Floats) -> Floats:
    """(n,) the variance of `win_rates` by the delta method, at most that of an unknown share.

    abilities: shrunk ones. Near 0 and 1 the slope is smallest, so at the plain ones the errors would be too small.
    variance: (n, n), of the differences of abilities. A rate does not change if all abilities move together, so these
    suffice.
    """
    wins = expit(abilities[:, None] - abilities[None, :])
    slopes = wins * (1 - wins) * (1 - np.eye(len(abilities))) / (len(abilities) - 1)
    gradient = np.diag(slopes.sum(axis=1)) - slopes
    rate_variance: Floats = np.clip(-0.5 * np.einsum("ij,jk,ik->i", gradient, variance, gradient), 0.0, 0.25)
    return rate_variance


def log_odds_variance(share_variance: float) -> float:
    """The prior variance of a difference of abilities at which E[(p - (1 - p))^2] is `share_variance`, 0..1."""
    log_odds, shares = _share_variances()
    return float(np.interp(share_variance, shares, log_odds))


@lru_cache(maxsize=1)
def _share_variances() -> tuple[Floats, Floats]:
    log_odds = np.geomspace(1e-3, 1e3, 200)
    nodes, weights = np.polynomial.hermite_e.hermegauss(61)
    shares = np.tanh(np.sqrt(log_odds)[:, None] * nodes / 2) ** 2 @ weights / weights.sum()
    return log_odds, shares


def _design(pairs: Ints, n: int) -> Floats:
    """(m, n + 1): +1 for the first response, -1 for the second, 1 for the position."""
    design = np.zeros((len(pairs), n + 1))
    rows = np.arange(len(pairs))
    design[rows, pairs[:, 0]] = 1.0
    design[rows, pairs[:, 1]] = -1.0
    design[:, n] = 1.0
    return design


def _mode(design: Floats, outcomes: Floats, prior: Floats, dispersion: float, start: Floats) -> Floats:
    """Newton's method on the log posterior, which is concave."""
    mode, largest, steps = start, np.inf, 0
    while largest > TOLERANCE and steps < MAX_STEPS:
        gradient = design.T @ (outcomes - expit(design @ mode)) / dispersion - prior @ mode
        step = np.linalg.solve(_information(design, mode) / dispersion + prior, gradient)
        largest, steps = float(np.abs(step).max()), steps + 1
        mode = mode + step * min(1.0, MAX_STEP / max(largest, TOLERANCE))
    return mode


def _information(design: Floats, mode: Floats) -> Floats:
    p = expit(design @ mode)
    information: Floats = (design * (p * (1 - p))[:, None]).T @ design
    return information


def _dispersion(
    design: Floats, outcomes: Floats, prior: Floats, dispersion: float, mode: Floats, outcome_variance: float
) -> tuple[float, float]:
    """The dispersion and its degrees of freedom.

    Residuals alone understate it where a response wins every sample, because p then follows the outcomes. So it is at
    least what the outcomes themselves show: E[y (1 - y)] = p (1 - p) - Var(y), which is 0 for winners without ties.
    """
    p = expit(design @ mode)
    bernoulli = float((p * (1 - p)).sum())
    if not bernoulli:
        return 1.0, 0.0
    information = _information(design, mode) / dispersion
    freedom = max(0.0, len(outcomes) - float(np.trace(np.linalg.solve(information + prior, information))))
    squares = float(((outcomes - p) ** 2).sum())
    pooled = (squares + PRIOR_FREEDOM * outcome_variance) / (freedom + PRIOR_FREEDOM)
    least = 1 - float((outcomes * (1 - outcomes)).sum()) / bernoulli
    return max(pooled * len(outcomes) / bernoulli, least, 0.05), freedom


def _of_differences(covariance: Floats) -> Floats:
    variance = np.diag(covariance)
    differences: Floats = variance[:, None] + variance[None, :] - covariance - covariance.T
    return differences
