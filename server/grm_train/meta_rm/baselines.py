"""Features that separate right from wrong trajectories without reading them. A meta RM must beat these baselines."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grm_server.grm.types import Floats
from grm_train.meta_rm.trajectories import Trajectory


def length_features(trajectories: Sequence[Trajectory]) -> Floats:
    """(m, 5), logarithms: lengths of principles, critique, the response shown first, and all responses; and how much
    longer the preferred response is than the others, 0 if there is no preference."""
    return np.array([_of_lengths(trajectory) for trajectory in trajectories], dtype=float)


def _of_lengths(trajectory: Trajectory) -> tuple[float, ...]:
    principles, critique, *responses = trajectory.lengths
    whole = np.log1p([principles, critique, responses[0], sum(responses)])
    if trajectory.tied or len(responses) == 1:
        return (*whole, 0.0)
    best = trajectory.shown.index(max(trajectory.shown))
    others = np.delete(responses, best)
    return (*whole, float(np.log1p(responses[best]) - np.log1p(others).mean()))


def score_features(trajectories: Sequence[Trajectory]) -> Floats:
    """(m, 5): margin of the best, mean score, highest score, position of the best, tie."""
    return np.array([_of_scores(trajectory) for trajectory in trajectories], dtype=float)


def logit_features(trajectories: Sequence[Trajectory]) -> Floats | None:
    """(m, 4), from the expectation of the last score under the judge's own probabilities: the margin of the preferred
    response, with the expectation in place of the score; drawn score minus expectation; the expectation; and the mean.
    A trajectory without an expectation uses its drawn score. None if no trajectory has one."""
    if all(trajectory.expected_last is None for trajectory in trajectories):
        return None
    return np.array([_of_logits(trajectory) for trajectory in trajectories], dtype=float)


def _of_logits(trajectory: Trajectory) -> tuple[float, ...]:
    shown = np.array(trajectory.shown, dtype=float)
    last = shown[-1] if trajectory.expected_last is None else trajectory.expected_last
    luck = shown[-1] - last
    best = int(shown.argmax())
    shown[-1] = last
    others = np.delete(shown, best)
    margin = shown[best] - others.max() if len(others) else 0.0
    return float(margin), float(luck), float(last), float(shown.mean())


def _of_scores(trajectory: Trajectory) -> tuple[float, ...]:
    shown = trajectory.shown
    best, *others = sorted(shown, reverse=True)
    margin = best - others[0] if others else 0
    place = shown.index(best) / max(len(shown) - 1, 1)
    return margin, sum(shown) / len(shown), best, place, trajectory.tied
