"""What the samples of one request say about the judge: numbers to watch, which decide nothing.

Both are pure opinion against opinion: a judge that is wrong the same way every time agrees with itself.
"""

from __future__ import annotations

import numpy as np

from grm_server.grm.types import Floats


def disagreement(scores: Floats) -> float | None:
    """How often two samples contradict each other on which of two responses is better, 0..1.

    scores: (m, n) as sampled, NaN where a response was not shown.

    Of responses a and b, with c_ab samples that score a higher, c_ba that score b higher and m_ab that show both, it is
    c_ab c_ba / (m_ab (m_ab - 1) / 2): the share of the pairs of samples that prefer opposite ones. A tie contradicts
    nobody. The mean over the pairs of responses that two samples show; None if there is no such pair. A judge that
    tosses a coin has 0.5 in the mean over requests; one request with few samples may have more.
    """
    above = (scores[:, :, None] > scores[:, None, :]).sum(axis=0)
    seen = (~np.isnan(scores)).astype(float)
    both = seen.T @ seen
    first, second = np.triu_indices(scores.shape[1], 1)
    twice = both[first, second] >= 2
    first, second = first[twice], second[twice]
    if not len(first):
        return None
    shown = both[first, second]
    return float(np.mean(above[first, second] * above[second, first] / (shown * (shown - 1) / 2)))


def consensus_auc(scores: Floats, meta_rewards: Floats) -> float | None:
    """How well the meta RM tells samples that agree with the others from samples that do not, 0..1; a coin has 0.5.

    scores: (m, n) as sampled, NaN where a response was not shown. meta_rewards: (m,)

    A stand-in for the within-prompt AUC where nobody knows the labels: a sample counts as right if it scores one
    response above all others that it shows, and the plain mean of the *other* samples has no higher one among these.
    Guidance has no part in that mean, or it would confirm itself. The value is the share of (right, wrong) pairs in
    which the right one has the higher meta reward, equal ones counting half (Mann-Whitney). None if all are right, or
    all wrong.
    """
    known = ~np.isnan(scores)
    filled = np.where(known, scores, 0.0)
    others = known.sum(axis=0) - known
    with np.errstate(invalid="ignore"):
        mean = (filled.sum(axis=0) - filled) / np.where(known & (others > 0), others, np.nan)
    own = np.where(known, scores, -np.inf)
    alone = (own == own.max(axis=1, keepdims=True)).sum(axis=1) == 1
    favourite = own.argmax(axis=1)
    level = np.where(np.isnan(mean), -np.inf, mean)
    at_favourite = level[np.arange(len(scores)), favourite]
    right = alone & np.isfinite(at_favourite) & (at_favourite >= level.max(axis=1))
    above = meta_rewards[right][:, None] - meta_rewards[~right][None, :]
    return float(np.mean((above > 0) + 0.5 * (above == 0))) if above.size else None
