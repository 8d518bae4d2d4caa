"""Temperature scaling of a verdict's `p_best` against labels, fitted by `grm calibrate` and applied to answers.

More samples make `p_best` surer of the judge's opinion, but do not reduce the judge's bias. With k samples, the
certainty grows like sqrt(k) while the bias stays, so the temperature grows like sqrt(k) too: one parameter, tau, serves
all k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

MIN_LABELS = 300
"""With fewer labels, no calibration is fitted: the temperature would be off by a third."""


@dataclass(frozen=True, slots=True)
class LabelledAnswer:
    """One answered request whose best response is known."""

    p_best: tuple[float, ...]
    k_used: int
    label: int
    """Index of the best response according to the label."""


def temperature(tau: float, k_used: int) -> float:
    """The temperature for an answer of `k_used` rounds; at least 1, so labels never sharpen `p_best`."""
    return max(1.0, tau * math.sqrt(k_used))


def soften(p_best: Sequence[float], at: float) -> tuple[float, ...]:
    """The probabilities after temperature scaling: p ** (1 / at), normalized to sum 1."""
    # `p_best` is estimated from posterior draws, so it may be 0 although the true probability is not.
    logits = np.log(np.maximum(p_best, 1e-4)) / at
    shares = np.exp(logits - logits.max())
    return tuple(map(float, shares / shares.sum()))


def fit(labelled: Sequence[LabelledAnswer]) -> float:
    """The maximum-likelihood tau. Requests may have different numbers of responses."""

    def negative_log_likelihood(log_tau: float) -> float:
        return -sum(math.log(p_label(item, math.exp(log_tau))[item.label]) for item in labelled)

    bounds = (math.log(0.05), math.log(50.0))
    return math.exp(minimize_scalar(negative_log_likelihood, bounds=bounds, method="bounded").x)


def p_label(item: LabelledAnswer, tau: float) -> tuple[float, ...]:
    """(n,): calibrated probability that each response is the labelled best."""
    return soften(item.p_best, temperature(tau, item.k_used))


def expected_calibration_error(predicted: Sequence[float], happened: Sequence[bool], bins: int = 10) -> float:
    """ECE: mean absolute gap between predicted probability and observed frequency, over bins of equal width, weighted
    by bin size."""
    p, y = np.array(predicted), np.array(happened, dtype=float)
    bin_of = np.minimum((p * bins).astype(int), bins - 1)
    return float(sum(abs((p - y)[bin_of == b].sum()) for b in range(bins)) / len(p))
