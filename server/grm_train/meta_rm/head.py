"""A linear head on fixed features, chosen by how well it ranks the trajectories of the same request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from grm_server.grm.types import Bools, Floats, Ints
from grm_train.meta_rm.quality import group_aucs, members_of

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""sklearn's C, from strong to weak regularisation."""
Fit = Literal["pointwise", "pairwise"]
AnyFloats = NDArray[np.floating[Any]]
"""Features of a base are stored in 32 bits."""


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """One part of the data."""

    features: AnyFloats
    """(m, layers, d)"""
    right: Bools
    """(m,)"""
    groups: Ints
    """(m,), the item."""


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """A logit is feature @ weight."""

    weight: Floats
    """(d,), for raw features: their scale is folded in; their mean would shift all logits equally and is left out."""
    layer: int
    """Index into the layers of the features."""
    fit: Fit
    strength: float
    auc: float
    """Within-prompt AUC on the selection prompts."""


def choose(train: Examples, selection: Examples, seed: int, on_fit: Callable[[int], None] = lambda _: None) -> Head:
    """The best head over layers, strengths and two kinds of fit. Ties go to the first, which has the fewest layers.

    on_fit: called with 1 after each of the `fits(layers)` heads.
    """
    best: Head | None = None
    for layer in range(train.features.shape[1]):
        x, unseen = (part.features[:, layer].astype(float) for part in (train, selection))
        for fit, strength, weight in _heads(x, train.right, train.groups, seed):
            auc = float(group_aucs(unseen @ weight, selection.right, selection.groups).mean())
            if best is None or auc > best.auc:
                best = Head(weight, layer, fit, strength, auc)
            on_fit(1)
    assert best is not None
    return best


def fits(layers: int) -> int:
    """Number of heads that `choose` compares."""
    return 2 * len(STRENGTHS) * layers


def _heads(x: Floats, right: Bools, groups: Ints, seed: int) -> Iterator[tuple[Fit, float, Floats]]:
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread == 0] = 1
    scaled = (x - mean) / spread
    differences, share = _differences(scaled, right, groups, seed)
    # The sign of a difference carries no information, but the classifier needs both classes.
    first = np.arange(len(differences)) % 2 == 0
    signed = np.where(first[:, None], differences, -differences)
    for strength in STRENGTHS:
        yield "pointwise", strength, logistic(scaled, right, strength) / spread
        yield "pairwise", strength, logistic(signed, first, strength, share, intercept=False) / spread


def logistic(x: Floats, y: Bools, strength: float, weights: Floats | None = None, *, intercept: bool = True) -> Floats:
    """(d,), coefficients of a logistic regression."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, fit_intercept=intercept, max_iter=1000)
    coefficients: Floats = model.fit(x, y, sample_weight=weights).coef_[0]
    return coefficients


def _differences(x: Floats, right: Bools, groups: Ints, seed: int) -> tuple[Floats, Floats]:
    """Differences right - wrong within groups, and their weights. What all trajectories of a request share cancels out.

    Each trajectory of the more frequent kind is paired once, at random. A group's total weight is the count of the less
    frequent kind.
    """
    rng = np.random.default_rng(seed)
    rows, weights = [], []
    for members in members_of(groups):
        good, bad = (rng.permutation(members[kind]) for kind in (right[members], ~right[members]))
        if len(good) and len(bad):
            pairs = max(len(good), len(bad))
            rows.append(x[np.resize(good, pairs)] - x[np.resize(bad, pairs)])
            weights.append(np.full(pairs, min(len(good), len(bad)) / pairs))
    return np.concatenate(rows), np.concatenate(weights)


def platt(logits: Floats, right: Bools) -> tuple[float, float]:
    """a, b of the probability sigmoid(a * logit + b) that a trajectory is right."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = logits.mean(), logits.std() or 1.0
    # Weak regularisation, only to keep the slope finite on separable data.
    model = LogisticRegression(C=100.0).fit(((logits - mean) / spread)[:, None], right)
    a = float(model.coef_[0, 0] / spread)
    return a, float(model.intercept_[0] - a * mean)
