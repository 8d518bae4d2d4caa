"""What a prefix of the samples says about the responses: means, and how far they can be trusted.

Every number of the method that follows is made of these: differences of means, the variance of one sample's difference
and the number of samples a difference rests on. Decide on launch-order prefixes only, never on "the first m that
finished": critiques that find a flaw run longer, so those that finish first are kinder than the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from grm_server.grm.types import Evidence, Floats, Order, Prior

Bools = NDArray[np.bool_]
PRIOR_FREEDOM = 3.0
"""nu0: the prior's variance counts as much as this many degrees of freedom."""
# Two sets of samples that share no response have no common scale. This much information says that samples are equally
# lenient, so that such sets still get means, with a difference that is known to be worth next to nothing.
_RIDGE = 1e-6


def gather(values: Floats, orders: Sequence[Order], prior: Prior, *, blocks: bool = False) -> Evidence:
    """The evidence of a launch-order prefix.

    values: (m, n) ballots, NaN where a response was not shown or a sample has no scores.
    orders: (m,) the order that each sample showed.
    blocks: samples show blocks of the responses.

    Means are those of the additive model value = response + sample, by least squares: where every sample shows every
    response, the plain means; where samples show blocks, a lenient sample does not favour its block.

    Variances are pooled within orders, so that what a position adds is not taken for noise (it is balanced by design
    and does not make the mean uncertain). With blocks every sample has an order of its own: there they are those of
    the model's residuals, pooled over all responses.
    """
    seen = ~np.isnan(values)
    size = seen.sum(axis=1)
    shown = seen.sum(axis=0).astype(float)
    means, covariance = _additive(values, seen)
    pairs = 2 / np.maximum(_of_differences(covariance), 1e-12)
    if blocks:
        pair_squares, pair_freedom, squares, freedom = _model_residuals(values, seen, means)
    else:
        pair_squares, pair_freedom, squares, freedom = _within_orders(values, seen, orders)
    pair_variance = (pair_squares + PRIOR_FREEDOM * prior.pair_variance) / (pair_freedom + PRIOR_FREEDOM)
    np.fill_diagonal(pair_variance, 0.0)
    return Evidence(
        launched=len(values),
        valid=int((size > 0).sum()),
        means=means,
        shown=shown,
        score_variance=(squares + PRIOR_FREEDOM * prior.score_variance) / (freedom + PRIOR_FREEDOM),
        pairs=pairs,
        pair_variance=pair_variance,
        freedom=pair_freedom + PRIOR_FREEDOM,
        prior=prior,
    )


def position_effect(values: Floats, orders: Sequence[Order], means: Floats) -> Floats | None:
    """(list size,): how much higher a response is scored for standing at each position; sums to about 0.

    Over whole designs that is the effect itself, since each response stands equally often at each position. None with
    one response, or with fewer samples than positions. Samples that show fewer responses than others are left out.
    """
    length = max(map(len, orders), default=0)
    whole = [list(order) for order in orders if len(order) == length]
    rows = values[[len(order) == length for order in orders]]
    shown = [
        row[order] - means[order] for row, order in zip(rows, whole, strict=True) if not np.isnan(row[order]).any()
    ]
    if length < 2 or len(shown) < length:
        return None
    above = np.array(shown)
    effect: Floats = (above - above.mean(axis=1, keepdims=True)).mean(axis=0)
    return effect


def _additive(values: Floats, seen: Bools) -> tuple[Floats, Floats]:
    """Least squares of value = response + sample: (n,) means and their (n, n) covariance for noise of variance 1.

    Covariances are right up to a constant, so that differences have the right variance.
    """
    whole = seen.all(axis=1)
    if whole.any() and not (seen.any(axis=1) & ~whole).any():
        return values[whole].mean(axis=0), np.eye(seen.shape[1]) / whole.sum()
    weight = seen / (seen.sum(axis=1, keepdims=True) + _RIDGE)
    level = values[seen].mean() if seen.any() else np.nan
    above = np.where(seen, values - level, 0.0)
    information = np.diag(seen.sum(axis=0) + np.where(seen.any(axis=0), 0.0, _RIDGE)) - weight.T @ seen
    covariance: Floats = np.linalg.inv(information)
    means = level + covariance @ (above.sum(axis=0) - weight.T @ above.sum(axis=1))
    return np.where(seen.any(axis=0), means, np.nan), covariance


def _of_differences(covariance: Floats) -> Floats:
    """(n, n): the variance of each difference."""
    variance = np.diag(covariance)
    return variance[:, None] + variance[None, :] - covariance - covariance.T


def _within_orders(values: Floats, seen: Bools, orders: Sequence[Order]) -> tuple[Floats, Floats, Floats, Floats]:
    """Sums of squares about the means of samples with one order, and their degrees of freedom: pairs, responses."""
    groups: dict[Order, list[int]] = {}
    for j, order in enumerate(orders):
        if seen[j].any():
            groups.setdefault(order, []).append(j)
    residuals = np.zeros_like(values)
    freedom = np.zeros((values.shape[1], values.shape[1]))
    for rows in groups.values():
        shown = seen[rows[0]]
        residuals[np.ix_(rows, shown)] = values[np.ix_(rows, shown)] - values[np.ix_(rows, shown)].mean(axis=0)
        freedom += (len(rows) - 1) * np.outer(shown, shown)
    together = (residuals**2).T @ seen
    pair_squares = together + together.T - 2 * residuals.T @ residuals
    return np.maximum(pair_squares, 0.0), freedom, (residuals**2).sum(axis=0), np.diag(freedom).copy()


def _model_residuals(values: Floats, seen: Bools, means: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The same from what the additive model leaves over; one value for all pairs."""
    above = np.where(seen, values - means, 0.0)
    size = seen.sum(axis=1)
    lenient = above.sum(axis=1) / np.maximum(size, 1)
    residuals = np.where(seen, above - lenient[:, None], 0.0)
    n = values.shape[1]
    freedom = max(0, int(size.sum()) - n - int((size > 0).sum()) + 1)
    ones = np.ones((n, n))
    return 2 * (residuals**2).sum() * ones, freedom * ones, (above**2).sum(axis=0), np.maximum(seen.sum(axis=0) - 1, 0)
