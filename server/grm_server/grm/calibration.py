"""The label temperature: how much less sure than the judge's own `p_best` one should be about the truth.

Samples make `p_best` sure of the judge's opinion; the judge's bias stays. In k samples the certainty grows like sqrt(k)
and the bias does not shrink, so the temperature grows like sqrt(k) too, and one parameter serves all k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

MIN_LABELS = 300
"""Fewer give no calibration: the temperature would be off by a third."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """One answered request whose best response is known."""

    p_best: tuple[float, ...]
    k_used: int
    label: int
    """Index of the response that is best by label."""


def temperature(tau: float, k_used: int) -> float:
    """The temperature for an answer of `k_used` samples; at least 1, for no label makes the judge surer of itself."""
    return max(1.0, tau * math.sqrt(k_used))


def soften(p_best: Sequence[float], at: float) -> tuple[float, ...]:
    """Probabilities made less sure by a temperature: p ** (1 / at), summing to 1 again."""
    # Drawn probabilities may be 0; none is that sure.
    logits = np.log(np.maximum(p_best, 1e-4)) / at
    shares = np.exp(logits - logits.max())
    return tuple(map(float, shares / shares.sum()))


def fit(labelled: Sequence[Labelled]) -> float:
    """The tau under which the labels are likeliest. Requests may have different numbers of responses."""

    def surprise(log_tau: float) -> float:
        return -sum(math.log(p_label(item, math.exp(log_tau))[item.label]) for item in labelled)

    return math.exp(minimize_scalar(surprise, bounds=(math.log(0.05), math.log(50.0)), method="bounded").x)


def p_label(item: Labelled, tau: float) -> tuple[float, ...]:
    """(n,): what `p_best` is worth against labels."""
    return soften(item.p_best, temperature(tau, item.k_used))


def expected_calibration_error(predicted: Sequence[float], happened: Sequence[bool], bins: int = 10) -> float:
    """Mean distance between a probability and how often it came true, over equally wide bins, weighted by size."""
    p, y = np.array(predicted), np.array(happened, dtype=float)
    places = np.minimum((p * bins).astype(int), bins - 1)
    return float(sum(abs((p - y)[places == b].sum()) for b in range(bins)) / len(p))
