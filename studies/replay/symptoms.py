"""Checks the assumptions of early stopping on a log of real samples, for `studies.replay.study`.

D is the score difference, in one sample, of the two responses with the largest sums over all samples, leader first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.lib.estimates import Estimate, mean_of, ratio_of
from grm_server.grm.evidence import position_effect
from grm_server.grm.types import Floats
from studies.replay.log import LoggedRequest

SHUFFLES = 200
FIRST = (4, 8, 16)
"""Numbers of samples taken from the start of the launch order or of the completion order."""


def symptoms(rows: Sequence[LoggedRequest]) -> dict[str, Any]:
    """All checks, for rows with the same number of responses."""
    return {
        "completion_order": completion_order(rows),
        "length": length_correlation(rows),
        "position": positions(rows),
        "runs": runs_test(rows),
        "shared_noise": shared_noise(rows),
        "swap_inconsistency": mean_of([_swapped(row) for row in rows]) if rows[0].n == 2 else None,
        "ties": ties(rows),
        "duplicates": duplicates(rows),
    }


def completion_order(rows: Sequence[LoggedRequest]) -> dict[int, dict[str, Estimate]]:
    """Disagreement with all samples: of the first m launched, of the first m finished, and the difference."""
    by_m = {}
    for m in FIRST:
        launched = np.array([_disagrees(row, np.arange(m)) for row in rows], dtype=float)
        by_end = [np.argsort(row.finished_s, kind="stable")[:m] for row in rows]
        finished = np.array([_disagrees(*both) for both in zip(rows, by_end, strict=True)], dtype=float)
        by_m[m] = {
            "launched": mean_of(launched),
            "finished": mean_of(finished),
            "excess": mean_of(finished - launched),
        }
    return by_m


def length_correlation(rows: Sequence[LoggedRequest]) -> Estimate:
    """Correlation within prompts of a sample's length and D: a sample that finds a flaw of the leader may be longer."""
    products, squares = [], []
    for row in rows:
        d = _difference(row)
        seen = ~np.isnan(d)
        x, y = row.tokens[seen] - row.tokens[seen].mean(), d[seen] - d[seen].mean()
        products.append(float(x @ y))
        squares.append((float(x @ x), float(y @ y)))
    scale = np.sqrt(np.prod(np.sum(squares, axis=0)))
    return ratio_of(products, np.full(len(rows), scale / len(rows)))


def positions(rows: Sequence[LoggedRequest]) -> dict[str, Any]:
    """Mean effect of each position with its standard error, and the gain of balanced orders over random ones."""
    effects = np.array(
        [
            e
            for row in rows
            if (e := position_effect(row.values, row.orders, np.nanmean(row.values, axis=0))) is not None
        ]
    )
    between, within = np.transpose([_order_variances(row) for row in rows])
    return {
        "effect": effects.mean(axis=0).tolist(),
        "se": (effects.std(axis=0, ddof=1) / np.sqrt(len(effects))).tolist(),
        "share_of_variance": ratio_of(between, between + within),
        "gain": ratio_of(between + within, within),
    }


def _order_variances(row: LoggedRequest) -> tuple[float, float]:
    """Variances of a sample's score difference, mean over pairs: between orders (estimate, may be negative) and within.

    Random orders add the former to the noise of each sample, balanced ones do not. So the gain of balanced orders is
    1 + between / within.
    """
    groups = [g[~np.isnan(g[:, 0])] for g in _by_order(row, row.values)]
    a, b = np.triu_indices(row.n, 1)
    gaps = [g[:, a] - g[:, b] for g in groups if len(g)]
    freedom = sum(len(g) - 1 for g in gaps)
    within = sum(((g - g.mean(axis=0)) ** 2).sum(axis=0) for g in gaps) / freedom
    raw = np.var([g.mean(axis=0) for g in gaps], axis=0)
    noise = within * np.mean([1 / len(g) for g in gaps]) * (len(gaps) - 1) / len(gaps)
    return float(np.mean(raw - noise)), float(np.mean(within))


def runs_test(rows: Sequence[LoggedRequest]) -> dict[str, float]:
    """The runs test of Wald and Wolfowitz (1940): are the samples exchangeable in launch order?

    It counts runs of the sign of D minus the median of D in the same order, since alternating orders would make runs by
    themselves. The reference is SHUFFLES shuffles within orders, because few samples share an order. Few runs (z < 0)
    mean that neighbours are alike.
    """
    rng = np.random.default_rng(0)
    z = np.array([z for row in rows if (z := _runs_z(row, rng)) is not None])
    count = max(len(z), 1)
    return {
        "prompts": len(z),
        "share_p_below_05": float((np.abs(z) > 1.96).sum() / count),
        "combined_z": float(z.sum() / np.sqrt(count)),
    }


def _runs_z(row: LoggedRequest, rng: np.random.Generator) -> float | None:
    """None if the number of runs cannot vary."""
    d = _difference(row)
    signs = np.zeros(row.k)
    groups = [np.array([o == order for o in row.orders]) & ~np.isnan(d) for order in sorted(set(row.orders))]
    for group in groups:
        if group.any():
            signs[group] = np.sign(d[group] - np.median(d[group]))
    observed, shuffled = _runs(signs), []
    for _ in range(SHUFFLES):
        for group in groups:
            signs[group] = rng.permutation(signs[group])
        shuffled.append(_runs(signs))
    spread = float(np.std(shuffled))
    return (observed - float(np.mean(shuffled))) / spread if spread else None


def _runs(signs: Floats) -> int:
    return 1 + int(np.count_nonzero(np.diff(signs[signs != 0])))


def shared_noise(rows: Sequence[LoggedRequest]) -> float:
    """Share of the variance between a prompt's samples that the sample index j explains across all prompts.

    About 0 if samples of different prompts are independent, as all intervals here assume. It is larger if all requests
    had the same seed: then sample j gets the same random numbers in each. Uses the difference of first and last shown.
    """
    gaps = np.array([[own[o[0]] - own[o[-1]] for own, o in zip(row.values, row.orders, strict=True)] for row in rows])
    gaps -= np.nanmean(gaps, axis=1, keepdims=True)
    within = np.nanmean(np.nanvar(gaps, axis=1, ddof=1))
    return float((np.nanvar(np.nanmean(gaps, axis=0), ddof=1) - within / len(rows)) / within)


def ties(rows: Sequence[LoggedRequest]) -> dict[str, float]:
    """Share of samples whose highest score is tied, and of prompts whose largest sum over all samples is tied."""
    single = [_shared_top(scores) for row in rows for scores in row.values if not np.isnan(scores).any()]
    return {"sample": float(np.mean(single)), "full_k": float(np.mean([_shared_top(row.sums) for row in rows]))}


def duplicates(rows: Sequence[LoggedRequest]) -> dict[str, float]:
    """Share of samples with no text before the scores, and with the same text as another sample of the prompt."""
    texts = [text for row in rows for text in row.texts]
    again = sum(count for row in rows for text, count in Counter(row.texts).items() if text and count > 1)
    return {"empty": texts.count("") / len(texts), "repeated": again / len(texts)}


def _difference(row: LoggedRequest) -> Floats:
    first, second = np.argsort(-row.sums, kind="stable")[:2]
    d: Floats = row.values[:, first] - row.values[:, second]
    return d


def _swapped(row: LoggedRequest) -> bool:
    """Whether the two orders of two responses name different responses."""
    means = [np.nanmean(group[:, 0] - group[:, 1]) for group in _by_order(row, row.values)]
    return len(means) == 2 and bool(means[0] * means[1] < 0)


def _by_order(row: LoggedRequest, values: Floats) -> list[Floats]:
    return [values[[o == order for o in row.orders]] for order in sorted(set(row.orders))]


def _disagrees(row: LoggedRequest, samples: Any) -> bool:
    return bool(np.nansum(row.values[samples], axis=0).argmax() != row.sums.argmax())


def _shared_top(scores: Floats) -> bool:
    return bool((scores == scores.max()).sum() > 1)
