"""Agreement among the samples of an answered request, for the metrics. Nothing is decided on these numbers.

Both compare the judge's samples with each other, not with labels: a judge that always makes the same mistake agrees
with itself.
"""

from __future__ import annotations

import numpy as np

from grm_server.grm.types import Floats


def disagreement(scores: Floats) -> float | None:
    """How often two samples contradict each other on which of two responses is better, 0..1.

    scores: (m, n) as sampled, NaN where a response was not shown.

    Let c_ab samples score response a higher, c_ba score b higher, and m_ab show both. The disagreement on a and b is
    c_ab c_ba / (m_ab (m_ab - 1) / 2): the share of the pairs of samples with opposite preferences. A tie contradicts
    no sample. Returns the mean over the pairs of responses that at least two samples show; None if there is no such
    pair. A judge that tosses a coin has 0.5 on average over requests; one request with few samples may have more.
    """
    above = (scores[:, :, None] > scores[:, None, :]).sum(axis=0)
    seen = (~np.isnan(scores)).astype(float)
    both = seen.T @ seen
    first, second = np.triu_indices(scores.shape[1], 1)
    comparable = both[first, second] >= 2
    first, second = first[comparable], second[comparable]
    if not len(first):
        return None
    samples = both[first, second]
    return float(np.mean(above[first, second] * above[second, first] / (samples * (samples - 1) / 2)))


def consensus_auc(scores: Floats, meta_rewards: Floats) -> float | None:
    """How well the meta RM separates samples that agree with the others from samples that do not, 0..1; chance is 0.5.

    scores: (m, n) as sampled, NaN where a response was not shown. meta_rewards: (m,)

    Without labels, this stands in for the within-prompt AUC. A sample counts as right if it scores one response above
    all others that it shows, and the plain mean of the *other* samples puts none of these higher. That mean ignores the
    meta RM, which would otherwise confirm itself. Returns the share of (right, wrong) pairs in which the right sample
    has the higher meta reward, ties counting half (Mann-Whitney); None if all samples are right or all are wrong.
    """
    known = ~np.isnan(scores)
    filled = np.where(known, scores, 0.0)
    others = known.sum(axis=0) - known
    with np.errstate(invalid="ignore"):
        mean = (filled.sum(axis=0) - filled) / np.where(known & (others > 0), others, np.nan)
    scored = np.where(known, scores, -np.inf)
    has_one_best = (scored == scored.max(axis=1, keepdims=True)).sum(axis=1) == 1
    best = scored.argmax(axis=1)
    others_mean = np.where(np.isnan(mean), -np.inf, mean)
    others_mean_of_best = others_mean[np.arange(len(scores)), best]
    right = has_one_best & np.isfinite(others_mean_of_best) & (others_mean_of_best >= others_mean.max(axis=1))
    above = meta_rewards[right][:, None] - meta_rewards[~right][None, :]
    return float(np.mean((above > 0) + 0.5 * (above == 0))) if above.size else None
