"""What traffic teaches about requests to come: the prior variances of `decided` and of the posterior means.

Learnt from the first wave of each request alone: its length does not depend on what it shows, while a request that was
stopped early was stopped because its samples agreed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.types import Aggregate, Floats, Prior

DEFAULT_WEIGHT = 20.0
"""Requests that the defaults count for."""
MEMORY = 1000.0
"""Requests after which what was learnt fades: a policy in training changes."""


OUTLIER = 9.0
BOUND = 16.0
"""Callers teach, and may be hostile. One request counts for 9 times what is known at most (three standard deviations of
a gap), and no prior leaves a sixteenth to sixteen times its default."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """A prior and how many requests it rests on, the default's weight included."""

    prior: Prior
    weight: float = DEFAULT_WEIGHT


def observe(learnt: Learnt, wave: Floats, aggregate: Aggregate) -> Learnt:
    """What is known after one more request.

    wave: (m, n) ballots of its first wave under the aggregate, NaN where there are none. Position effects count as
    noise here: a wave may hold each order once. Less than two samples of a response teach nothing, and blocks teach no
    differences.
    """
    rows = wave[~np.isnan(wave).all(axis=1)]
    if len(rows) < 2:
        return learnt
    # Blocks show a response once or twice in a wave; what is missing is left out of each mean.
    count = (~np.isnan(rows)).sum(axis=0)
    if (count < 2).any():
        return learnt
    score_variance = float(np.mean(np.nanvar(rows, axis=0, ddof=1)))
    n = rows.shape[1]
    old, default = learnt.prior, AGGREGATES[aggregate].prior
    pair_variance, gap_variance = old.pair_variance, old.gap_variance
    if n > 1 and not np.isnan(rows).any():
        centred = rows - rows.mean(axis=1, keepdims=True)
        # Twice the variance that a response has alone is the mean variance of a difference; same for the gaps.
        pair_variance = 2 * float(np.var(centred, axis=0, ddof=1).sum()) / (n - 1)
        gap_variance = 2 * float(np.var(rows.mean(axis=0), ddof=1)) - pair_variance / len(rows)
    weight = learnt.weight + 1
    step = 1 / min(weight, MEMORY)

    def moved(now: float, seen: float, start: float) -> float:
        return float(np.clip(now + step * (min(seen, OUTLIER * now) - now), start / BOUND, start * BOUND))

    return Learnt(
        Prior(
            moved(old.pair_variance, pair_variance, default.pair_variance),
            # One request's estimate may be negative; the mean of many is not.
            moved(old.gap_variance, gap_variance, default.gap_variance),
            moved(old.score_variance, score_variance, default.score_variance),
        ),
        weight,
    )
