"""What each sample votes: a number for every response that it was shown.

`sampled` reads the scores as they were written. `expected` reads the last one from the distribution it was drawn from.
E[S | critique, scores before it] has less variance than S, but in a list it is a trap: a judge that anchors its second
score on the first cancels noise in the sampled difference and not in the expected one. So only the score written last
may be replaced by its expectation, which never raises the variance of a difference (Rao-Blackwell); with one response
that is the only one.

`aggregates` then turns scores into ballots, whose mean over samples is the reward.
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
"""Share of the distribution that must lie on scores; below it the expectation would be one of a part."""
MAX_AMBIGUOUS = 0.02
"""Where "10" is two tokens, "1" may be the score 1 or the start of 10. Up to this share it is taken for the one nearer
to the mode, an error of at most 9 * 0.02 points; above it the engine must have looked (`Sample.ten_share`)."""


def ballots(outcomes: Sequence[Trajectory | Failure], n: int, reading: Reading, aggregate: Aggregate) -> Floats:
    """(m, n): what each sample votes for each response; NaN where it was not shown or the sample has no scores."""
    scores = np.full((len(outcomes), n), np.nan)
    for j, outcome in enumerate(outcomes):
        if isinstance(outcome, Trajectory):
            scores[j] = [np.nan if score is None else score for score in outcome.scores]
            last = outcome.draw.order[-1]
            if reading == "expected" and (expected := expected_scores(outcome)[last]) is not None:
                scores[j, last] = expected
    return AGGREGATES[aggregate].ballots(scores)


def expected_scores(trajectory: Trajectory) -> tuple[float | None, ...]:
    """(n,), request order: each score's expectation given the critique and the scores sampled before it, 1..10.

    None where the response was not shown or the tokens do not tell. Whether they tell depends on the distribution alone
    and never on the score that was sampled: a choice by the outcome would bias the mean.
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
    """Which tokens of a score tail begin a number, up to the box's end."""
    tail = "".join(texts).partition("}")[0]
    places = {match.start() for match in _NUMBER.finditer(tail)}
    found, offset = [], 0
    for index, text in enumerate(texts):
        # A token may carry the space before the number.
        if offset + len(text) - len(text.lstrip()) in places and text.strip():
            found.append(index)
        offset += len(text)
    return found


def _expectation(logprobs: Mapping[str, float], ten_share: float | None) -> float | None:
    """ten_share: of what begins with "1", the share that goes on to "10"; None if nobody looked."""
    mass = dict.fromkeys(range(1, 11), 0.0)
    for text, logprob in logprobs.items():
        digits = text.strip()
        if digits.isascii() and digits.isdigit() and 1 <= int(digits) <= 10:
            # " 8" and "8" are one score.
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
