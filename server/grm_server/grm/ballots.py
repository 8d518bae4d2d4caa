"""Compute the ballots of parsed samples: a number for every response that a sample showed. `evidence` comes next.

`sampled` takes the scores as written. `expected` replaces the last score by the mean of the distribution it was drawn
from. E[S | critique, earlier scores] has less variance than S, but in a list it is a trap: if the judge anchors its
second score on the first, their common noise cancels in the sampled difference but not in the expected one. So only the
last score is replaced, which never raises the variance of a difference (Rao-Blackwell). With one response, the last
score is the only one.

`aggregates` then turns the scores into ballots, whose mean over samples is the reward.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.types import Aggregate, Failure, Floats, Reading, Trajectory

_NUMBER = re.compile(r"[0-9]+")

MIN_MASS = 0.98
"""Probability that must lie on scores; below it, the expectation would cover only part of the distribution."""
MAX_AMBIGUOUS = 0.02
"""Where "10" is two tokens, "1" may be the score 1 or the start of 10. Up to this share, "1" counts as whichever is
nearer to the mode, an error of at most 9 * 0.02 points. Above it, the engine must provide `Sample.ten_share`."""


def ballots(outcomes: Sequence[Trajectory | Failure], n: int, reading: Reading, aggregate: Aggregate) -> Floats:
    """(m, n): each sample's ballot for each response; NaN where the response was not shown or the sample failed."""
    scores = np.full((len(outcomes), n), np.nan)
    for j, outcome in enumerate(outcomes):
        if isinstance(outcome, Trajectory):
            scores[j] = [np.nan if score is None else score for score in outcome.scores]
            last = outcome.draw.order[-1]
            if reading == "expected" and (expected := expected_scores(outcome)[last]) is not None:
                scores[j, last] = expected
    to_ballots = AGGREGATES[aggregate].ballots
    return scores if to_ballots is None else to_ballots(scores)


def expected_scores(trajectory: Trajectory) -> tuple[float | None, ...]:
    """(n,), request order: each score's expectation given the critique and the scores sampled before it, 1..10.

    None where the response was not shown or the tokens do not determine the expectation. Whether they do depends on the
    distribution alone, never on the sampled score: a choice based on the outcome would bias the mean.
    """
    sample, order = trajectory.sample, trajectory.draw.order
    expected: list[float | None] = [None] * len(trajectory.scores)
    starts = number_starts([token.text for token in sample.score_tokens])
    if len(starts) == len(order):
        for p, (i, start) in enumerate(zip(order, starts, strict=True)):
            ten_share = sample.ten_share if p == len(order) - 1 else None
            expected[i] = _expectation(sample.score_tokens[start].logprobs, ten_share)
    return tuple(expected)


def number_starts(texts: Sequence[str]) -> list[int]:
    """Indices of the tokens that begin a number in a score tail, up to the closing brace."""
    tail = "".join(texts).partition("}")[0]
    offsets = {match.start() for match in _NUMBER.finditer(tail)}
    starts, offset = [], 0
    for index, text in enumerate(texts):
        # A token may include the space before the number.
        if offset + len(text) - len(text.lstrip()) in offsets and text.strip():
            starts.append(index)
        offset += len(text)
    return starts


def _expectation(logprobs: Mapping[str, float], ten_share: float | None) -> float | None:
    """ten_share: probability that a score that begins with "1" is 10; None if the engine did not compute it."""
    mass = dict.fromkeys(range(1, 11), 0.0)
    for text, logprob in logprobs.items():
        digits = text.strip()
        if digits.isascii() and digits.isdigit() and 1 <= int(digits) <= 10:
            # " 8" and "8" are the same score.
            mass[int(digits)] += math.exp(logprob)
    total = sum(mass.values())
    if total < MIN_MASS:
        return None
    if mass[10] == 0.0:
        if ten_share is None and mass[1] > MAX_AMBIGUOUS * total:
            return None
        if ten_share is None:
            ten_share = float(max(mass, key=mass.__getitem__) >= 6)
        mass[10] = mass[1] * ten_share
        mass[1] -= mass[10]
    return sum(score * share for score, share in mass.items()) / total
