"""Parse a finished sample into scores in request order, or a named failure. Never raises on any text."""

from __future__ import annotations

import re

from grm_server.grm.types import Draw, Failure, FailureReason, Sample, Trajectory

_BOX = re.compile(r"([^{}]*)\}")
# Up to the end of the last complete sentence, item or line. A period after a digit does not end one: it is an item
# number or a decimal point.
_WHOLE = re.compile(r".*(?:(?:(?<![0-9])\.|[;!?)])(?=\s|\Z)|(?=[,\n]))", re.DOTALL)
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


def parse(draw: Draw, sample: Sample, n: int) -> Trajectory | Failure:
    """Parse one sample of a request with n responses. The sample may show fewer than n.

    The score tail starts inside the box that our own lead opened, so the first closing brace ends the verdict. We match
    first and validate afterwards: a pattern that admits only valid scores would skip a bad verdict and find another.
    """
    match = _BOX.match(sample.texts.get("scores", ""))
    words = [word.strip() for word in match[1].split(",")] if match else []
    if not words or not all(_INTEGER.fullmatch(word) for word in words):
        return Failure(draw, FailureReason.NO_SCORES, sample)
    if len(words) != len(draw.order):
        return Failure(draw, FailureReason.WRONG_COUNT, sample)
    if not all(1 <= int(word) <= 10 for word in words):
        return Failure(draw, FailureReason.OUT_OF_RANGE, sample)
    scores: list[int | None] = [None] * n
    for p, i in enumerate(draw.order):
        scores[i] = int(words[p])
    return Trajectory(draw, sample, tuple(scores))


def whole_principles(sample: Sample) -> str | None:
    """The principles of a principles-only sample; if it was cut, only complete sentences or items. None if empty."""
    text = sample.principles or ""
    if "principles" in sample.cut:
        match = _WHOLE.match(text)
        text = match[0].strip() if match else ""
    return text or None
