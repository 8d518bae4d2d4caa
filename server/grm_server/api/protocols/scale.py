"""Rewards on the scale of a trainer. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from grm_server.settings import RewardScale

LOW, HIGH = 1.0, 10.0


def scaled(rewards: Sequence[float], scale: RewardScale) -> list[float]:
    """(n,): rewards, 1..10, of responses judged together, on the scale. `centered` turns a single reward into 0."""
    match scale:
        case "raw":
            return list(rewards)
        case "unit":
            # Estimates of responses judged in blocks can lie slightly outside of 1..10.
            return [min(1.0, max(0.0, (reward - LOW) / (HIGH - LOW))) for reward in rewards]
        case "centered":
            mean = fmean(rewards)
            return [reward - mean for reward in rewards]


def neutral(scale: RewardScale) -> float:
    """The neutral reward."""
    return {"raw": (LOW + HIGH) / 2, "unit": 0.5, "centered": 0.0}[scale]
