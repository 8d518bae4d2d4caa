"""What a prefix of the samples says about the responses: means, and how far they can be trusted.

Every number of the method that follows is made of these: differences of means, the variance of one sample's difference
and the number of samples a difference rests on. Decide on launch-order prefixes only, never on "the first m that
finished": critiques that find a flaw run longer, so those that finish first are kinder than the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grm_server.grm.types import Bools, Evidence, Floats, Order, Prior

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

    Variances are those of what response, sample and position leave over: the effect of a position is balanced by design
    and must not be taken for noise. For two responses this is pooling within orders; for more it has far more freedom
    than that, since n orders are described by n positions. With blocks, positions are left in, and one variance serves
    all pairs, because few samples show the same two responses.
    """
    seen = ~np.isnan(values)
    valid = int(seen.any(axis=1).sum())
    shown = seen.sum(axis=0).astype(float)
    means, covariance = _additive(values, seen)
    pairs = 2 / np.maximum(_of_differences(covariance), 1e-12)
    residuals = _block_residuals(values, seen, means) if blocks else _list_residuals(values, seen, orders)
    pair_variance = _shrunk(residuals.pair_squares, residuals.pair_freedom, prior.pair_variance)
    np.fill_diagonal(pair_variance, 0.0)
    score_variance = _shrunk(residuals.squares, residuals.freedom, prior.score_variance)
    mean_variance = score_variance / np.maximum(shown, 1e-9)
    if residuals.leniency is not None and valid > 1:
        # What a response has for itself, and the leniency that all samples share out among all responses.
        centred = np.diag(covariance) - 2 * covariance.mean(axis=0) + covariance.mean()
        own = pair_variance.max() / 2 * centred
        mean_variance = own + residuals.leniency.var(ddof=1) / valid
    return Evidence(
        launched=len(values),
        valid=valid,
        means=means,
        shown=shown,
        mean_variance=mean_variance,
        pairs=pairs,
        pair_variance=pair_variance,
        freedom=residuals.pair_freedom + PRIOR_FREEDOM,
        prior=prior,
    )


def position_effect(values: Floats, orders: Sequence[Order], means: Floats) -> Floats | None:
    """(list size,): how much higher a response is scored for standing at each position; sums to about 0.

    Over whole designs that is the effect itself, since each response stands equally often at each position. None with
    one response, or with fewer samples than positions. Samples that show fewer responses than others are left out.
    """
    length = max(map(len, orders), default=0)
    if length < 2:
        return None
    whole = [j for j, order in enumerate(orders) if len(order) == length]
    stands = np.array([orders[j] for j in whole])
    above = np.take_along_axis(values[whole], stands, axis=1) - means[stands]
    above = above[~np.isnan(above).any(axis=1)]
    if len(above) < length:
        return None
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


@dataclass(frozen=True, slots=True, eq=False)
class _Residuals:
    """What the model leaves over: sums of squares and their degrees of freedom."""

    pair_squares: Floats
    """(n, n), of differences."""
    pair_freedom: Floats
    """(n, n)"""
    squares: Floats
    """(n,), of single ballots, leniency included."""
    freedom: Floats
    """(n,)"""
    leniency: Floats | None = None
    """(valid samples,), how far each sample lies above the model as a whole; with blocks only, whose samples do not
    share it among all responses."""


def _shrunk(squares: Floats, freedom: Floats, prior: float) -> Floats:
    variance: Floats = (squares + PRIOR_FREEDOM * prior) / (freedom + PRIOR_FREEDOM)
    return variance


def _list_residuals(values: Floats, seen: Bools, orders: Sequence[Order]) -> _Residuals:
    """Of response + sample + position, fitted for each set of responses that was shown together."""
    n = values.shape[1]
    together: dict[tuple[int, ...], list[int]] = {}
    for j, order in enumerate(orders):
        if seen[j].any():
            together.setdefault(tuple(sorted(order)), []).append(j)
    pair_squares, pair_freedom = np.zeros((n, n)), np.zeros((n, n))
    squares, freedom = np.zeros(n), np.zeros(n)
    for shown, rows in together.items():
        block = values[np.ix_(rows, shown)]
        lenient = block.mean(axis=1, keepdims=True) - block.mean()
        own = block - block.mean(axis=0) - lenient
        own, lost = _without_positions(own, [orders[j] for j in rows], shown)
        difference = own[:, :, None] - own[:, None, :]
        place = np.ix_(shown, shown)
        pair_squares[place] += (difference**2).sum(axis=0)
        pair_freedom[place] += max(0.0, len(rows) - 1 - lost)
        squares[list(shown)] += ((own + lenient) ** 2).sum(axis=0)
        freedom[list(shown)] += max(0.0, len(rows) - 1 - lost)
    return _Residuals(pair_squares, pair_freedom, squares, freedom)


def _without_positions(own: Floats, orders: Sequence[Order], shown: tuple[int, ...]) -> tuple[Floats, float]:
    """Residuals of response + sample, and the degrees of freedom per response that fitting positions took."""
    m, size = own.shape
    if size < 2:
        return own, 0.0
    stands = np.zeros((m, size, size))
    for j, order in enumerate(orders):
        for p, i in enumerate(order):
            stands[j, shown.index(i), p] = 1.0
    stands = stands - stands.mean(axis=0) - stands.mean(axis=1, keepdims=True) + stands.mean(axis=(0, 1))
    design = stands.reshape(m * size, size)
    effect, _, rank, _ = np.linalg.lstsq(design, own.ravel(), rcond=1e-9)
    return own - (design @ effect).reshape(m, size), rank / (size - 1)


def _block_residuals(values: Floats, seen: Bools, means: Floats) -> _Residuals:
    """Of response + sample; one value for all pairs."""
    above = np.where(seen, values - means, 0.0)
    size = seen.sum(axis=1)
    lenient = above.sum(axis=1) / np.maximum(size, 1)
    own = np.where(seen, above - lenient[:, None], 0.0)
    n = values.shape[1]
    freedom = float(max(0, int(size.sum()) - n - int((size > 0).sum()) + 1))
    ones = np.ones((n, n))
    squares = (own**2).sum()
    return _Residuals(
        2 * squares * ones, freedom * ones, (above**2).sum(axis=0), seen.sum(axis=0) - 1.0, lenient[size > 0]
    )
