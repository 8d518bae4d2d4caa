"""What a sample says: principles, critique and the scores put back into request order. Never raises on any text."""

from __future__ import annotations

import re

from grm_server.grm.types import Draw, Failure, FailureReason, Sample, Trajectory

_BOX = re.compile(r"([^{}]*)\}")
# Up to the end of the last whole sentence, item or line. The point after a number begins an item.
_WHOLE = re.compile(r".*(?:(?:(?<![0-9])\.|[;!?)])(?=\s|\Z)|(?=[,\n]))", re.DOTALL)
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


def parse(draw: Draw, sample: Sample, n: int) -> Trajectory | Failure:
    """Read one sample of a request with n responses, of which it may have shown fewer.

    The score tail starts inside the box that our own lead opened, so its first closing brace ends the verdict. It is
    validated after it is matched: a pattern that only admits valid scores would skip a bad verdict and find another.
    """
    match = _BOX.match(sample.texts.get("scores", ""))
    shown = [word.strip() for word in match[1].split(",")] if match else []
    if not shown or not all(_INTEGER.fullmatch(word) for word in shown):
        return Failure(draw, FailureReason.NO_SCORES, sample)
    if len(shown) != len(draw.order):
        return Failure(draw, FailureReason.WRONG_COUNT, sample)
    if not all(1 <= int(word) <= 10 for word in shown):
        return Failure(draw, FailureReason.OUT_OF_RANGE, sample)
    scores: list[int | None] = [None] * n
    for p, i in enumerate(draw.order):
        scores[i] = int(shown[p])
    return Trajectory(draw, sample, tuple(scores))


def whole_principles(sample: Sample) -> str | None:
    """The principles that a sample of nothing else wrote; of one that was cut, what it had finished. None: nothing."""
    text = sample.principles or ""
    if "principles" in sample.cut:
        match = _WHOLE.match(text)
        text = match[0].strip() if match else ""
    return text or None
