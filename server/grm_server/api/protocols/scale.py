"""Rewards on the scale that a trainer wants. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from grm_server.settings import RewardScale

LOW, HIGH = 1.0, 10.0


def scaled(rewards: Sequence[float], scale: RewardScale) -> list[float]:
    """(n,), of rewards that were judged together, 1..10. `centered` makes of one response 0."""
    match scale:
        case "raw":
            return list(rewards)
        case "unit":
            # Of responses judged in blocks the estimates can lie a little beyond the ends.
            return [min(1.0, max(0.0, (reward - LOW) / (HIGH - LOW))) for reward in rewards]
        case "centered":
            mean = fmean(rewards)
            return [reward - mean for reward in rewards]


def middle(scale: RewardScale) -> float:
    """What says nothing of a response: neither good nor bad."""
    return {"raw": (LOW + HIGH) / 2, "unit": 0.5, "centered": 0.0}[scale]
