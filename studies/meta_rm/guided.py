"""Shared by the studies of meta RMs: whether a weighted vote names the best response, and how well p ranks samples."""

from __future__ import annotations

import numpy as np

from benchmarks.lib.estimates import Estimate, ratio_of
from grm_server.grm.meta import guide
from grm_server.grm.types import Bools, Floats, Ints
from grm_train.meta_rm.quality import group_aucs, members_of

P0 = 0.5
"""The probability at which a sample of two responses is as good as a coin flip and gets weight 0."""


def names_best(ballots: Floats, best: int) -> float:
    """1 if the mean ballots put `best` first, 1/m if it ties with m - 1 others, else 0. ballots: (k, n)."""
    # Round as the server does: equal sums must tie, although weights may change the last digits.
    means = np.round(np.nanmean(ballots, axis=0), 6)
    first = means == means.max()
    return float(first[best] / first.sum())


def names_best_by_hinge(scores: Floats, p: Floats, best: int) -> float:
    """Whether `meta_hinge` names the best of two. scores: (k, 2); p: (k,)."""
    return names_best(guide(scores, p.tolist(), "meta_hinge", p0=P0, k_meta=0, k=len(p)).values, best)


def names_best_by_top(scores: Floats, p: Floats, best: int, k_meta: int) -> float:
    """Whether `meta_top` names the best of two. scores: (k, 2); p: (k,)."""
    return names_best(guide(scores, p.tolist(), "meta_top", p0=P0, k_meta=k_meta, k=len(p)).values, best)


def auc_within(values: Floats, right: Bools, groups: Ints, prompts: Ints) -> Estimate:
    """Mean AUC of the groups with right and wrong samples, bootstrapped by prompt. All (m,); a group lies within a
    prompt."""
    aucs = [group_aucs(values[rows], right[rows], groups[rows]) for rows in members_of(prompts)]
    return ratio_of([float(of_prompt.sum()) for of_prompt in aucs], [float(len(of_prompt)) for of_prompt in aucs])
