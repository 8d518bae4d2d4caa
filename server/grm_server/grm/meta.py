"""Weight or select the ballots by a meta RM's ratings, between `ballots` and `evidence`.

A meta RM gives every sample p, the probability that its scores are right (Liu et al. 2025, section 4.2).

`meta_hinge`  weights w = max(p - p0, 0). The weighted sum of scores is additive over samples, so every stop rule
              works on it, and an uninformative meta RM changes nothing on average.
`meta_top`    the paper's rule: the k_meta samples with the highest p vote, the others do not. A new sample can displace
              an old one, so nothing can be decided before all k samples are in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grm_server.grm.types import Ballots, Bools, Floats, MetaAggregate

MIN_WEIGHT = 1e-6
"""Weight of a sample that the hinge cuts off. It is not 0, so if all samples are cut off they vote as without a meta
RM."""


def hinge_weights(meta_rewards: Floats, p0: float) -> Floats:
    """(m,) in MIN_WEIGHT..1: (p - p0) / (1 - p0), at least MIN_WEIGHT. NaN where p is.

    p0: the probability at which a sample is worth nothing; 0.5 for two responses, where chance is right half the time.
    This holds only for calibrated p (Platt scaling).
    """
    weights: Floats = np.where(np.isnan(meta_rewards), np.nan, np.maximum((meta_rewards - p0) / (1 - p0), MIN_WEIGHT))
    return weights


def hinge(scores: Floats, meta_rewards: Floats, p0: float, score_range: float) -> Ballots:
    """Ballots weighted by `hinge_weights`.

    scores: (m, n), NaN where a response was not shown or the sample has no scores. meta_rewards: (m,), NaN for samples
    without scores.

    The ballots are L + w_j * (score - L), with w_j scaled to mean 1 and L the weighted mean of all scores. Weighting
    the distance from L keeps the weights from looking like differences in leniency between samples: the spread of the
    ballots over samples is then that of the weighted mean (delta method), and differences between responses are
    w_j * D_j.
    """
    weights = hinge_weights(meta_rewards, p0)
    seen = ~np.isnan(scores)
    voting: Bools = np.any(seen, axis=1)
    if not voting.any():
        return Ballots(scores, voting, score_range)
    scale = weights[voting].mean()
    w = np.where(voting, weights / scale, 0.0)[:, None]
    level = np.where(seen, w * scores, 0.0).sum() / (w * seen).sum()
    cut = weights <= MIN_WEIGHT
    votes: Bools = voting if cut[voting].all() else voting & ~cut
    return Ballots(level + w * (scores - level), votes, score_range / scale)


def top(scores: Floats, meta_rewards: Floats, k_meta: int, k: int, min_votes: int = 1) -> Ballots:
    """Ballots of the k_meta of k samples with the highest p, earlier samples first among ties; NaN for the others.

    Of fewer than k valid samples, the same share votes. With blocks, the best samples may all show the same responses,
    so a response with fewer than `min_votes` also keeps the next best samples that show it. See `hinge` for the
    arguments.
    """
    seen = ~np.isnan(scores)
    valid = int(seen.any(axis=1).sum())
    count = -(-k_meta * valid // k)
    ranked = np.argsort(np.where(seen.any(axis=1), -meta_rewards, np.inf), kind="stable")[:valid]
    votes = np.zeros(len(scores), dtype=np.bool_)
    votes[ranked[:count]] = True
    for j in ranked[count:]:
        lacking = seen[votes].sum(axis=0) < min(min_votes, count)
        votes[j] = (seen[j] & lacking).any()
    return Ballots(np.where(votes[:, None], scores, np.nan), votes, np.inf)


def guide(
    scores: Floats,
    meta_rewards: Sequence[float | None],
    aggregate: MetaAggregate,
    *,
    p0: float,
    k_meta: int,
    k: int,
    min_votes: int = 1,
    score_range: float = 9.0,
) -> Ballots:
    """`hinge` or `top`, by the name of the aggregate. meta_rewards: (m,), None for a sample that was not rated."""
    p = np.array([np.nan if reward is None else reward for reward in meta_rewards], dtype=float)
    return hinge(scores, p, p0, score_range) if aggregate == "meta_hinge" else top(scores, p, k_meta, k, min_votes)
