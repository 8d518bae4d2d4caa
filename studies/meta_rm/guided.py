"""What the benchmarks of meta RMs share: who is named under the server's guidance, and how well p ranks samples."""

from __future__ import annotations

import numpy as np

from benchmarks.lib.estimates import Estimate, ratio_of
from grm_server.grm.meta import guide
from grm_server.grm.types import Bools, Floats, Ints
from grm_train.meta_rm.quality import group_aucs, members_of

P0 = 0.5
"""The probability at which a sample of two responses is worth nothing."""


def named(ballots: Floats, best: int) -> float:
    """1 where the mean ballots put `best` first, a share where others tie with it, else 0. Ballots as in `Ballots`."""
    # Equal sums must tie, whatever the weights do to the last digits: the server rounds as much.
    means = np.round(np.nanmean(ballots, axis=0), 6)
    first = means == means.max()
    return float(first[best] / first.sum())


def hinged(scores: Floats, p: Floats, best: int) -> float:
    """Whether `meta_hinge` names the best of two. scores: (k, 2); p: (k,)."""
    return named(guide(scores, p.tolist(), "meta_hinge", p0=P0, k_meta=0, k=len(p)).values, best)


def topped(scores: Floats, p: Floats, best: int, k_meta: int) -> float:
    """Whether `meta_top` names the best."""
    return named(guide(scores, p.tolist(), "meta_top", p0=P0, k_meta=k_meta, k=len(p)).values, best)


def auc_within(values: Floats, right: Bools, groups: Ints, prompts: Ints) -> Estimate:
    """Mean AUC of the groups that have both kinds, bootstrapped by prompt. All (m,); a group lies within one prompt."""
    aucs = [group_aucs(values[rows], right[rows], groups[rows]) for rows in members_of(prompts)]
    return ratio_of([float(found.sum()) for found in aucs], [float(len(found)) for found in aucs])
