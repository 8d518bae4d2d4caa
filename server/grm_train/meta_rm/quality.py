"""Metrics of how well logits separate right from wrong trajectories. Pure."""

from __future__ import annotations

import numpy as np
from scipy.special import expit

from grm_server.grm.types import Bools, Floats, Ints

BINS = 10
RESAMPLES = 2000


def group_aucs(values: Floats, right: Bools, groups: Ints) -> Floats:
    """(informative groups,), per group the share of its (right, wrong) pairs that `values` put in the right order.

    values, right, groups: (m,). Only groups with both kinds count; a tie counts as half a pair. Shifting a whole group
    changes nothing: what all trajectories of a request share cannot help to weigh them.
    """
    aucs = []
    for members in members_of(groups):
        good, bad = values[members][right[members]], values[members][~right[members]]
        if len(good) and len(bad):
            above = good[:, None] - bad[None, :]
            aucs.append(np.mean(above > 0) + 0.5 * np.mean(above == 0))
    return np.array(aucs)


def members_of(groups: Ints) -> list[Ints]:
    """The indices of each group."""
    if not len(groups):
        return []
    by_group = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[by_group])) + 1
    return list(np.split(by_group, starts))


def informative(right: Bools, groups: Ints) -> int:
    """Number of groups with both right and wrong trajectories."""
    return sum(len(set(right[members].tolist())) == 2 for members in members_of(groups))


def interval(aucs: Floats, seed: int) -> tuple[float, float]:
    """95 % interval of the mean, bootstrapped over groups: trajectories within a group are not independent."""
    rng = np.random.default_rng(seed)
    means = [rng.choice(aucs, len(aucs)).mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def probabilities(logits: Floats, platt: tuple[float, float]) -> Floats:
    """sigmoid(a * logit + b)."""
    p: Floats = expit(platt[0] * logits + platt[1])
    return p


def calibration_error(p: Floats, right: Bools) -> float:
    """Mean distance between the predicted and the observed share of right trajectories, over bins of equal size."""
    bins = [b for b in np.array_split(np.argsort(p, kind="stable"), BINS) if len(b)]
    return float(sum(len(b) * abs(p[b].mean() - right[b].mean()) for b in bins) / len(p))
