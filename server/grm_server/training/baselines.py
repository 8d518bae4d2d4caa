"""What tells right trajectories from wrong ones without reading them. A meta RM that is no better has learnt that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grm_server.grm.types import Floats
from grm_server.training.trajectories import Trajectory


def length_features(trajectories: Sequence[Trajectory]) -> Floats:
    """(m, 4): lengths of principles, critique, the response shown first, and all of them, as logarithms."""
    rows = [(*t.lengths[:3], sum(t.lengths[2:])) for t in trajectories]
    features: Floats = np.log1p(np.array(rows, dtype=float))
    return features


def score_features(trajectories: Sequence[Trajectory]) -> Floats:
    """(m, 5): margin of the best, mean score, highest score, position of the best, tie."""
    return np.array([_of_scores(trajectory) for trajectory in trajectories], dtype=float)


def _of_scores(trajectory: Trajectory) -> tuple[float, ...]:
    shown = trajectory.shown
    best, *others = sorted(shown, reverse=True)
    margin = best - others[0] if others else 0
    place = shown.index(best) / max(len(shown) - 1, 1)
    return margin, sum(shown) / len(shown), best, place, trajectory.tied
