"""How well numbers tell right trajectories from wrong ones. Pure."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from grm_server.grm.types import Bools, Floats, Ints

BINS = 10
RESAMPLES = 2000


def group_aucs(values: Floats, right: Bools, groups: Ints) -> Floats:
    """(informative groups,), the share of a group's (right, wrong) pairs that `values` rank rightly, where it has both.

    A tie is half a pair. values, right, groups: (m,). A shift of a whole group changes nothing: what is the same for
    all trajectories of a request cannot help to weigh them.
    """
    found = []
    for members in members_of(groups):
        good, bad = values[members][right[members]], values[members][~right[members]]
        if len(good) and len(bad):
            above = good[:, None] - bad[None, :]
            found.append(np.mean(above > 0) + 0.5 * np.mean(above == 0))
    return np.array(found)


def members_of(groups: Ints) -> list[Ints]:
    """The indices of each group."""
    if not len(groups):
        return []
    by_group = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[by_group])) + 1
    return list(np.split(by_group, starts))


def informative(right: Bools, groups: Ints) -> int:
    """Groups with both right and wrong trajectories."""
    return sum(len(set(right[members].tolist())) == 2 for members in members_of(groups))


def interval(aucs: Floats, seed: int) -> tuple[float, float]:
    """95 % of the mean, bootstrapped: the groups are what was drawn, their trajectories are not independent."""
    rng = np.random.default_rng(seed)
    means = [rng.choice(aucs, len(aucs)).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def probabilities(logits: Floats, platt: tuple[float, float]) -> Floats:
    """sigmoid(a * logit + b)."""
    found: Floats = expit(platt[0] * logits + platt[1])
    return found


def calibration_error(p: Floats, right: Bools) -> float:
    """Mean distance of predicted and observed share of right ones, over bins of equal size."""
    bins = [b for b in np.array_split(np.argsort(p, kind="stable"), BINS) if len(b)]
    return float(sum(len(b) * abs(p[b].mean() - right[b].mean()) for b in bins) / len(p))
