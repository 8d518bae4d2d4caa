"""Learn the prior variances from answered requests; `decided` and the posterior means of later requests use them.

Only the first wave of each request counts, because its length does not depend on its scores. A request that stopped
early stopped because its samples agreed, so its later waves would bias the estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.types import Aggregate, Floats, Layout, Order, Prior

DEFAULT_WEIGHT = 20.0
"""Weight of the default prior, in requests."""
MEMORY = 1000.0
"""Number of requests after which old traffic fades, since a policy in training changes."""


OUTLIER = 9.0
"""Clients may be hostile, so one request counts as at most 9 times the current estimate: three standard deviations of a
gap."""
BOUND = 16.0
"""For the same reason a prior stays within a factor of 16 of its default."""


@dataclass(frozen=True, slots=True)
class LearnedPrior:
    """A prior and the number of requests behind it, the default's weight included."""

    prior: Prior
    weight: float = DEFAULT_WEIGHT


def observe(
    learned: LearnedPrior,
    wave: Floats,
    aggregate: Aggregate,
    *,
    layout: Layout = "lists",
    orders: Sequence[Order] = (),
    winners: bool = False,
) -> LearnedPrior:
    """The prior updated by one more request.

    wave: (m, n) ballots of its first wave under the aggregate, NaN where missing. In lists, position effects count as
    noise here, because a wave may show each order only once. A request with fewer than two samples of some response
    changes nothing. A single response or blocks update only the score variance.
    orders: (m,), needed for pairs. winners: the judge names winners instead of scoring.
    """
    variances = _pair_variances(wave, orders) if layout == "pairs" else None
    rows = wave[~np.isnan(wave).all(axis=1)]
    if len(rows) < 2:
        return learned
    # With blocks, a response appears in only some samples of a wave; each mean leaves out the missing values.
    count = (~np.isnan(rows)).sum(axis=0)
    if (count < 2).any():
        return learned
    score_variance = float(np.mean(np.nanvar(rows, axis=0, ddof=1)))
    n = rows.shape[1]
    old, facts = learned.prior, AGGREGATES[aggregate]
    default = facts.winners_prior if winners else facts.prior
    pair_variance, gap_variance = old.pair_variance, old.gap_variance
    if variances is not None:
        pair_variance, gap_variance = variances
    elif layout == "singles":
        pair_variance = 2 * score_variance
        noise = float(np.mean(np.nanvar(rows, axis=0, ddof=1) / count))
        gap_variance = 2 * (float(np.var(np.nanmean(rows, axis=0), ddof=1)) - noise)
    elif n > 1 and not np.isnan(rows).any():
        centred = rows - rows.mean(axis=1, keepdims=True)
        # The mean variance of a difference is twice the mean variance of one centred response; likewise for the gaps.
        pair_variance = 2 * float(np.var(centred, axis=0, ddof=1).sum()) / (n - 1)
        gap_variance = 2 * float(np.var(rows.mean(axis=0), ddof=1)) - pair_variance / len(rows)
    weight = learned.weight + 1
    step = 1 / min(weight, MEMORY)

    def updated(current: float, observed: float, initial: float) -> float:
        target = min(observed, OUTLIER * current)
        return float(np.clip(current + step * (target - current), initial / BOUND, initial * BOUND))

    return LearnedPrior(
        Prior(
            updated(old.pair_variance, pair_variance, default.pair_variance),
            # One request's estimate may be negative; the mean over many requests is not.
            updated(old.gap_variance, gap_variance, default.gap_variance),
            updated(old.score_variance, score_variance, default.score_variance),
        ),
        weight,
    )


def _pair_variances(wave: Floats, orders: Sequence[Order]) -> tuple[float, float] | None:
    """The variance of the difference in a pair and of the true differences; None unless two pairs were shown twice.

    The product of two independent differences of the same pair has the square of the true one as its mean.
    """
    valid = [j for j, row in enumerate(wave) if not np.isnan(row).all()]
    shown = np.array([orders[j] for j in valid], dtype=np.intp).reshape(-1, 2)
    differences = wave[valid, shown[:, 0]] - wave[valid, shown[:, 1]]
    # A ring shows each pair in both orders, so the mean is the effect of the position.
    differences = np.where(shown[:, 0] < shown[:, 1], 1, -1) * (
        differences - np.sum(differences) / max(len(differences), 1)
    )
    of_pair: dict[tuple[int, int], list[float]] = {}
    for (a, b), difference in zip(np.sort(shown, axis=1).tolist(), differences.tolist(), strict=True):
        of_pair.setdefault((a, b), []).append(difference)
    repeated = [np.array(pair) for pair in of_pair.values() if len(pair) > 1]
    if len(repeated) < 2:
        return None
    gaps = [(d.sum() ** 2 - (d**2).sum()) / (len(d) * (len(d) - 1)) for d in repeated]
    # The mean took one degree of freedom from all pairs together, and a little of each difference's noise.
    noise = float(np.mean([d.var(ddof=1) for d in repeated])) * len(repeated) / (len(repeated) - 1)
    return noise, float(np.mean(gaps)) - noise / len(differences)
