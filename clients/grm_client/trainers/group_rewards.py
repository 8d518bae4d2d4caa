"""Rewards for a flat list of samples, in the trainer's process: regroup, ask, put back. What the adapters share."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

from grm_client.batch import Scored
from grm_client.errors import GRMClientError
from grm_client.trainers.groups import Chat, in_flat_order, into_groups
from grm_client.trainers.reward_config import RewardConfig, is_set_up
from grm_client.types import Rewards

logger = logging.getLogger(__name__)

STOP = {"rule": "fixed"}
"""Unless the options say otherwise, as on the server's routes for trainers: a trainer learns from every reward, and the
server's own default reads responses that cannot be the best less often."""


@dataclass(frozen=True, slots=True)
class Judged:
    """(N,) each, in the trainer's order; None where the group was not judged."""

    rewards: list[float | None]
    """1 to 10."""
    ids: list[str | None]
    """The server's name for the judgement of the sample's group."""
    failed_share: float
    """Of all groups."""
    se: float
    """Mean standard error of the rewards, in their points; NaN if there are none."""
    k_used: float
    """Readings of a response, mean of the groups judged; 0 if there are none."""
    failure: GRMClientError | None
    """Why the first of the groups without rewards has none."""

    def numbers(self, config: RewardConfig) -> list[float]:
        """The rewards, for trainers that would take None for a reward of 0, worse than any other. Raises `failure` if
        the configuration has no reward for that."""
        instead = config.failure_reward
        if self.failure is not None and instead is None:
            raise self.failure
        return [reward if reward is not None else instead for reward in self.rewards]  # type: ignore[misc]


async def judge_flat(
    config: RewardConfig,
    prompts: Sequence[Chat],
    completions: Sequence[Chat],
    keys: Sequence[Hashable] | None = None,
) -> Judged:
    """Judge each group in one request. See `into_groups` for the lists.

    A group that could not be judged is logged. Raises APIError where the server refuses what every group has in common,
    such as the key or an option: no later step would fare better.
    """
    groups = into_groups(prompts, completions, keys)
    requests = [{"query": group.query, "responses": group.responses} for group in groups]
    async with config.client() as client:
        options = {"stop": STOP, **config.request_options()}
        scored = await client.score_many(requests, concurrency=config.concurrency, **options)
    failure = _complain(scored)
    judged = [answer if isinstance(answer, Rewards) else None for answer in scored]
    answers = [answer for answer in judged if answer is not None]
    return Judged(
        rewards=in_flat_order(groups, [None if answer is None else answer.rewards for answer in judged]),
        ids=in_flat_order(groups, [None if answer is None else [answer.id] * len(answer.rewards) for answer in judged]),
        failed_share=judged.count(None) / max(len(judged), 1),
        se=fmean(error for answer in answers for error in answer.se) if answers else float("nan"),
        k_used=fmean(answer.k_used for answer in answers) if answers else 0.0,
        failure=failure,
    )


def _complain(scored: Sequence[Scored]) -> GRMClientError | None:
    failures = [answer for answer in scored if not isinstance(answer, Rewards)]
    for failure in failures:
        if is_set_up(failure):
            raise failure
    if not failures:
        return None
    logger.warning("%d of %d groups have no rewards: %s", len(failures), len(scored), failures[0])
    return failures[0]
