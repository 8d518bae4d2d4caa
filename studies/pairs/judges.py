"""Simulated judges that compare two responses or grade one: those of studies/judges.py, shown fewer responses.

A comparison sees the two scores of one sample, plus what the first position is worth. The response that looks better
wins; a small difference is a tie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from grm_server.grm.types import Floats, Ints, Order, Prior
from studies.judges import Judge, simulate

Kind = Literal["winners", "preferences", "scores", "singles"]
WIN_RANGE = (1.0, 10.0)
FIRST_POINTS = 0.8
"""What the first position is worth to a comparing judge, in points."""
TIE_POINTS = 0.6
"""A difference below this many points is a tie."""
FULL_PREFERENCE = 4.0
"""Points of difference at which a preference is as strong as the judge can say."""
STEPS = 3
"""Strengths of preference on either side."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Prompts with n responses each."""

    scores: Floats
    """(prompts, samples, n): what sample j would score each response; a row of NaN where it cannot be parsed."""
    rounding: Floats
    """(prompts, samples), -0.5..0.5: what rounding to integers took from a difference."""
    best: Ints
    """(prompts,): the truly best response."""

    def values(self, prompt: int, orders: Sequence[Order], kind: Kind) -> Floats:
        """(len(orders), n): the ballots of the first samples; NaN where a response was not shown."""
        values = np.full((len(orders), self.scores.shape[2]), np.nan)
        for j, order in enumerate(orders):
            shown = self.scores[prompt, j, list(order)]
            values[j, list(order)] = ballots(shown, self.rounding[prompt, j], kind)
        return values


def simulate_groups(judge: Judge, n: int, samples: int, prompts: int, rng: np.random.Generator) -> Groups:
    simulated = simulate(judge, n, samples, prompts, rng)
    return Groups(simulated.scores, rng.uniform(-0.5, 0.5, (prompts, samples)), simulated.best)


def ballots(shown: Floats, rounding: Floats | float, kind: Kind) -> Floats:
    """The ballots of the shown responses. shown: (..., 1) scores for singles, else (..., 2). rounding: (...)."""
    if kind == "singles":
        return shown
    if kind == "scores":
        return shown + np.array([FIRST_POINTS / 2, -FIRST_POINTS / 2])
    difference = shown[..., 0] - shown[..., 1] + FIRST_POINTS + rounding
    if kind == "winners":
        strength = np.sign(difference) * (np.abs(difference) >= TIE_POINTS)
    else:
        strength = np.rint(np.clip(difference / FULL_PREFERENCE, -1, 1) * STEPS) / STEPS
    lowest, highest = WIN_RANGE
    strength = np.where(np.isnan(difference), np.nan, strength)[..., None] * [0.5, -0.5]
    both: Floats = (lowest + highest) / 2 + (highest - lowest) * strength
    return both


def true_prior(groups: Groups, kind: Kind) -> Prior:
    """The variances that the server's priors estimate, from all samples of all prompts, on the first two responses."""
    half = groups.scores.shape[1] // 2
    forth, back = groups.scores[:, :half, :2], groups.scores[:, half : 2 * half, 1::-1]
    if kind == "singles":
        one, other = forth[..., 0], back[..., 0]
        variances = [np.nanvar(x, axis=1, ddof=1) for x in (one, other)]
        gaps = np.nanmean(one, axis=1) - np.nanmean(other, axis=1)
        noise, score_variance = variances[0] + variances[1], float(np.mean(variances))
        return Prior(float(noise.mean()), float((gaps**2 - noise / half).mean()), score_variance)
    first = ballots(forth, groups.rounding[:, :half], kind)
    second = ballots(back, groups.rounding[:, half : 2 * half], kind)
    differences = [first[..., 0] - first[..., 1], second[..., 1] - second[..., 0]]
    noise = np.mean([np.nanvar(d, axis=1, ddof=1) for d in differences], axis=0)
    gaps = np.mean([np.nanmean(d, axis=1) for d in differences], axis=0)
    score_variance = float(np.nanvar(first[..., 0], axis=1, ddof=1).mean())
    return Prior(float(noise.mean()), float((gaps**2 - noise / (2 * half)).mean()), score_variance)


def long_run_best(groups: Groups, start: int, kind: Kind) -> Ints:
    """(prompts,): the response that the judge names by its samples from `start` on, shown all pairs in both orders."""
    scores = groups.scores[:, start:]
    if kind in ("singles", "scores"):
        best: Ints = np.nanmean(scores, axis=1).argmax(axis=1)
        return best
    rewards = []
    for own, rounding in zip(scores, groups.rounding[:, start:, None, None], strict=True):
        pair = np.stack(np.broadcast_arrays(own[:, :, None], own[:, None, :]), axis=-1)
        first, second = ballots(pair, rounding, kind)[..., 0], ballots(pair[..., ::-1], rounding, kind)[..., 1]
        rewards.append(np.nanmean(first + second, axis=(0, 2)))
    best = np.array(rewards).argmax(axis=1)
    return best
