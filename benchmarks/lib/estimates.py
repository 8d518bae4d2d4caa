"""Means and ratios over prompts, with bootstrap intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grm_server.grm.types import Floats

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over prompts, with a 95 % interval from a bootstrap by prompt."""

    value: float
    low: float
    high: float


def mean_of(per_prompt: Sequence[float] | Floats) -> Estimate:
    return ratio_of(per_prompt, np.ones(len(per_prompt)))


def ratio_of(numerator: Sequence[float] | Floats, denominator: Sequence[float] | Floats) -> Estimate:
    """Sum of the numerators over the sum of the denominators (>= 0), resampled in pairs; NaN if the latter is 0."""
    a, b = np.asarray(numerator, dtype=float), np.asarray(denominator, dtype=float)
    drawn = np.random.default_rng(0).integers(len(a), size=(RESAMPLES, len(a)))
    if not b.any():
        return Estimate(math.nan, math.nan, math.nan)
    numerator_drawn, denominator_drawn = a[drawn].sum(axis=1), b[drawn].sum(axis=1)
    low, high = np.quantile(
        numerator_drawn[denominator_drawn > 0] / denominator_drawn[denominator_drawn > 0], (0.025, 0.975)
    )
    return Estimate(float(a.sum() / b.sum()), float(low), float(high))
