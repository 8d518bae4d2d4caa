"""The vote under a meta RM's guidance: how much each sample counts for.

A meta RM gives every sample p, the probability that its scores are right (Liu et al. 2025, section 4.2).

`meta_hinge`  weights w = max(p - p0, 0). The weighted sum of scores is additive over samples, so every stopping rule
              works on it, and a meta RM that knows nothing changes nothing on average.
`meta_top`    the paper's: the k_meta samples with the highest p vote, the others do not. A new sample can push an old
              one out, so nothing can be said before all k are there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grm_server.grm.types import Ballots, Bools, Floats, MetaAggregate

FLOOR = 1e-6
"""Weight of a sample that the hinge cuts off: where it cuts all of them, they vote as if there were no meta RM."""


def hinge_weights(meta_rewards: Floats, p0: float) -> Floats:
    """(m,) in FLOOR..1: (p - p0) / (1 - p0) where that is positive. NaN where p is.

    p0: the probability at which a sample is worth nothing; 0.5 for two responses, where a coin is right half the time.
    Calibrate p (Platt), or p0 does not mean that.
    """
    weights: Floats = np.where(np.isnan(meta_rewards), np.nan, np.maximum((meta_rewards - p0) / (1 - p0), FLOOR))
    return weights


def hinge(scores: Floats, meta_rewards: Floats, p0: float, score_range: float) -> Ballots:
    """scores: (m, n), NaN where a response was not shown or the sample has none. meta_rewards: (m,), NaN for those.

    The ballots are L + w_j * (score - L) with w_j scaled to mean 1 and L the weighted mean of all scores. Scores enter
    through their distance from L because a weight must not count as a difference between samples' leniency: so the
    spread of the ballots over the samples is that of the weighted mean (the delta method), and differences between
    responses are w_j * D_j.
    """
    weights = hinge_weights(meta_rewards, p0)
    seen = ~np.isnan(scores)
    voting: Bools = np.any(seen, axis=1)
    if not voting.any():
        return Ballots(scores, voting, score_range)
    scale = weights[voting].mean()
    w = np.where(voting, weights / scale, 0.0)[:, None]
    level = np.where(seen, w * scores, 0.0).sum() / (w * seen).sum()
    cut = weights <= FLOOR
    kept: Bools = voting if cut[voting].all() else voting & ~cut
    return Ballots(level + w * (scores - level), kept, score_range / scale)


def top(scores: Floats, meta_rewards: Floats, k_meta: int, k: int, min_votes: int = 1) -> Ballots:
    """The k_meta of k samples with the highest p, earlier ones first among equals; the same share of fewer samples.

    Of samples that show blocks the best may all show the same responses: a response that would have fewer than
    `min_votes` keeps the next best that show it. Ballots of the others are NaN. See `hinge` for the arguments.
    """
    seen = ~np.isnan(scores)
    valid = int(seen.any(axis=1).sum())
    count = -(-k_meta * valid // k)
    ranked = np.argsort(np.where(seen.any(axis=1), -meta_rewards, np.inf), kind="stable")[:valid]
    kept = np.zeros(len(scores), dtype=np.bool_)
    kept[ranked[:count]] = True
    for j in ranked[count:]:
        lacking = seen[kept].sum(axis=0) < min(min_votes, count)
        kept[j] = (seen[j] & lacking).any()
    return Ballots(np.where(kept[:, None], scores, np.nan), kept, np.inf)


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
    """`hinge` or `top`, by name."""
    p = np.array([np.nan if reward is None else reward for reward in meta_rewards], dtype=float)
    return hinge(scores, p, p0, score_range) if aggregate == "meta_hinge" else top(scores, p, k_meta, k, min_votes)
