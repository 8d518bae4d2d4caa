"""Turn the scores of each sample into its ballot, after `ballots` has read them; one table row for each aggregate.

The reward is the mean of the ballots over samples. There is no median: its ties cost more accuracy than the outliers
that it ignores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from grm_server.grm.types import Aggregate, Floats, Prior

WINSOR_POINTS = 2.0


def winsorised(scores: Floats) -> Floats:
    """Scores clipped to within 2 points of the median of the response's scores (Winsor; Tukey 1962).

    A garbage sample then moves the mean little. A later sample may move the median and so change earlier ballots.
    """
    ballots = scores.copy()
    for i in range(scores.shape[1]):
        present = scores[~np.isnan(scores[:, i]), i]
        if present.size:
            median = np.median(present)
            ballots[:, i] = np.clip(scores[:, i], median - WINSOR_POINTS, median + WINSOR_POINTS)
    return ballots


def vote(scores: Floats) -> Floats:
    """Plurality: 1 for the best response of the sample, split equally among ties, 0 for the others."""
    best = scores == np.fmax.reduce(scores, axis=1, keepdims=True)
    return np.where(np.isnan(scores), np.nan, best / np.maximum(best.sum(axis=1, keepdims=True), 1))


def borda(scores: Floats) -> Floats:
    """Borda count: the share of the other shown responses that a response beats, ties counting half, 0..1."""
    above = scores[:, :, None] - scores[:, None, :]
    points = np.where(np.isnan(above), 0.0, 0.5 + 0.5 * np.sign(above)).sum(axis=2) - 0.5
    others = (~np.isnan(scores)).sum(axis=1, keepdims=True) - 1
    return np.where(np.isnan(scores), np.nan, points / np.maximum(others, 1))


@dataclass(frozen=True, slots=True)
class AggregateFacts:
    """The properties of one aggregate."""

    ballots: Callable[[Floats], Floats] | None
    """(m, n) scores, NaN where a response was not shown -> (m, n) ballots, before the meta RM's weights. None: the
    scores are the ballots, 1..10; their sum over samples is eq. 14 of Liu et al. 2025."""
    ballot_range: float
    """Largest difference between two ballots of one sample; infinite if a later sample may change an earlier ballot."""
    prior: Prior
    """The initial prior of a new model or task, in squared points of the ballot. See `priors`."""
    win_range: tuple[float, float] = (1.0, 10.0)
    """The ballots of a loser and a winner, for a judge that names winners; a tie is halfway."""
    winners_prior: Prior = Prior(pair_variance=39.0, gap_variance=30.0, score_variance=9.7)
    """`prior` for such a judge: that of votes, in the units of `win_range`."""
    needs_comparison: bool = False
    """It compares responses, so it needs at least two."""
    sums_over_samples: bool = True
    """Ballots never change once cast. The proof of `strict` needs this."""
    droppable: bool = False
    """A response's ballots do not depend on which others are shown, so losers may be dropped before full k."""
    needs_all_k: bool = False
    """A new sample can displace an old one, so nothing can be decided before all k samples are in."""


_SCORES = Prior(pair_variance=3.8, gap_variance=3.2, score_variance=2.3)
_SHARES = Prior(pair_variance=0.48, gap_variance=0.37, score_variance=0.12)

AGGREGATES: Mapping[Aggregate, AggregateFacts] = MappingProxyType(
    {
        "mean": AggregateFacts(None, 9.0, _SCORES, droppable=True),
        "winsorised": AggregateFacts(
            winsorised,
            math.inf,
            Prior(pair_variance=2.1, gap_variance=3.7, score_variance=1.35),
            sums_over_samples=False,
            droppable=True,
        ),
        "vote": AggregateFacts(vote, 1.0, _SHARES, (0.0, 1.0), _SHARES, needs_comparison=True),
        "borda": AggregateFacts(borda, 1.0, _SHARES, (0.0, 1.0), _SHARES, needs_comparison=True),
        # Only half the samples vote, or the weights vary by as much as their mean: the noise of a ballot about doubles.
        "meta_hinge": AggregateFacts(None, 9.0, Prior(pair_variance=7.6, gap_variance=3.2, score_variance=4.6)),
        "meta_top": AggregateFacts(None, 9.0, _SCORES, needs_all_k=True),
    }
)
"""To add an aggregate, add a function and a row here, its name in `types.Aggregate` and in `settings`, and its text in
the API schema. The priors fit a judge one in six of whose samples contradicts the sum of 32, and one in ten of whose
samples is garbage (judge C of studies/judges.py, pairs)."""
