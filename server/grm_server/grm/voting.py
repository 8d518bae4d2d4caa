"""From the scores of k samples to one reward for each response."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

from grm_server.grm.types import Failure, Trajectory, Verdict


def vote(trajectories: Sequence[Trajectory], failures: Sequence[Failure] = ()) -> Verdict:
    """Sum the scores of every valid sample (Liu et al. 2025, eq. 14) and divide by their number.

    The sum has 9 * k_valid + 1 possible values instead of one sample's ten: that is what voting buys. Responses with
    equal sums are reported in `ties` and ranked in request order.

    Raises ValueError without a single trajectory: there is no reward to invent.
    """
    if not trajectories:
        raise ValueError("cannot vote without a valid sample")
    k_valid = len(trajectories)
    vote_sums = tuple(sum(column) for column in zip(*(t.scores for t in trajectories), strict=True))
    ranking = tuple(sorted(range(len(vote_sums)), key=lambda i: -vote_sums[i]))
    level = (tuple(group) for _, group in groupby(ranking, key=lambda i: vote_sums[i]))
    return Verdict(
        rewards=tuple(total / k_valid for total in vote_sums),
        vote_sums=vote_sums,
        ranking=ranking,
        ties=tuple(group for group in level if len(group) > 1),
        k_valid=k_valid,
        failures=dict(Counter(failure.reason for failure in failures)),
    )
