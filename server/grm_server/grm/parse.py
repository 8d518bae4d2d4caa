"""Parse a finished sample into scores in request order, or a named failure. Never raises on any text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from grm_server.grm.script import Grammar, Sample
from grm_server.grm.types import HIGH, LOW, Draw, Failure, FailureReason, Trajectory
from grm_server.grm.verdicts import Reading, read, verdict_name

# Up to the end of the last complete sentence, item or line. A period after a digit does not end one: it is an item
# number or a decimal point.
_WHOLE = re.compile(r".*(?:(?:(?<![0-9])\.|[;!?)])(?=\s|\Z)|(?=[,\n]))", re.DOTALL)


def parse(grammars: Sequence[Grammar], draw: Draw, sample: Sample, n: int) -> Trajectory | Failure:
    """Parse one sample of a request with n responses. The sample may show fewer than n.

    grammars: of the verdicts of the judge's format, on the responses shown.
    """
    shown = len(draw.order)
    readings: list[Reading] = []
    for index, grammar in enumerate(grammars):
        tokens = sample.verdict_tokens[index] if index < len(sample.verdict_tokens) else ()
        ten_share = sample.ten_share if index == 0 else None
        reading = read(grammar, shown, sample.texts.get(verdict_name(index), ""), tokens, ten_share)
        if isinstance(reading, FailureReason):
            return Failure(draw, reading, sample)
        readings.append(reading)
    shares = _combined(grammars, [reading.scores for reading in readings])
    expected_shares = _combined(grammars, [reading.expected for reading in readings])
    points = [_points(share) for share in shares]
    # In a list, only the last value may be replaced by its expectation: if the judge anchors its second score on the
    # first, their common noise cancels in the sampled difference but not in the expected one. Replacing the last one
    # never raises the variance of a difference (Rao-Blackwell).
    replaceable = range(shown - 1, shown) if grammars[0].is_list else range(shown)
    expected = list(points)
    for p in replaceable:
        if (share := expected_shares[p]) is not None:
            expected[p] = _points(share)
    return Trajectory(
        draw,
        sample,
        scores=_in_request_order(readings[0].scores, draw, n),
        expected_scores=_in_request_order(readings[0].expected, draw, n),
        points=_in_request_order(points, draw, n),
        expected_points=_in_request_order(expected, draw, n),
    )


def _combined(grammars: Sequence[Grammar], verdicts: Sequence[Sequence[float | None]]) -> list[float | None]:
    """(shown,): the weighted mean of the verdicts, each on 0..1; None where one of those that count has none."""
    total = sum(grammar.weight for grammar in grammars)
    combined: list[float | None] = []
    for values in zip(*verdicts, strict=True):
        shares = [
            None if value is None else (value - grammar.low) / (grammar.high - grammar.low) * grammar.weight
            for value, grammar in zip(values, grammars, strict=True)
            if grammar.weight
        ]
        known = [share for share in shares if share is not None]
        combined.append(sum(known) / total if len(known) == len(shares) else None)
    return combined


def _points(share: float | None) -> float | None:
    return None if share is None else LOW + (HIGH - LOW) * share


def _in_request_order(shown: Sequence[float | None], draw: Draw, n: int) -> tuple[float | None, ...]:
    ordered: list[float | None] = [None] * n
    for p, i in enumerate(draw.order):
        ordered[i] = shown[p]
    return tuple(ordered)


def whole_principles(sample: Sample) -> str | None:
    """The principles of a principles-only sample; if it was cut, only complete sentences or items. None if empty."""
    text = sample.principles or ""
    if "principles" in sample.cut:
        match = _WHOLE.match(text)
        text = match[0].strip() if match else ""
    return text or None
