"""Comparison of two responses in the format of NVIDIA's pairwise GenRM. Pure."""

from __future__ import annotations

from typing import NamedTuple

from grm_server.api.protocols.scale import scaled
from grm_server.pipeline.types import Judgement


class Pair(NamedTuple):
    score_1: float
    """1..5."""
    score_2: float
    ranking: float
    """1 (the first is much better) to 6 (the second is much better); 3.5 is a tie."""


def compare_pair(judgement: Judgement, one: int, other: int) -> Pair:
    """Scores from the rewards, and the ranking from the probability that one is above the other."""
    unit = scaled(judgement.verdict.rewards, "unit")
    return Pair(
        round(1 + 4 * unit[one], 2),
        round(1 + 4 * unit[other], 2),
        round(6 - 5 * judgement.verdict.p_greater[one][other], 2),
    )
