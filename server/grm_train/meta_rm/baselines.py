"""What tells right trajectories from wrong ones without reading them. A meta RM that is no better has learnt that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grm_server.grm.types import Floats
from grm_train.meta_rm.trajectories import Trajectory


def length_features(trajectories: Sequence[Trajectory]) -> Floats:
    """(m, 5), logarithms: lengths of principles, critique, the response shown first, and all of them; and how much
    longer the response that the judge prefers is than the others, 0 where it prefers none."""
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
    """(m, 4), of how probable the judge held the score that it wrote last, through its expectation: the margin of the
    response that it prefers, with that expectation for the score; by how much the score that was drawn differs from it;
    the expectation; and the mean. A trajectory that has none counts as drawn. None where no trajectory has one."""
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
