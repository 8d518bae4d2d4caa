"""Rewards for a flat list of samples, grouped in the trainer's process. Shared by the TRL and ms-swift adapters."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean

from grm_client.batch import ScoreResult
from grm_client.errors import GRMClientError
from grm_client.thoughts import opens_thought, without_thoughts
from grm_client.trainers.groups import (
    Chat,
    in_flat_order,
    into_groups,
    read_completion,
    read_prompt,
    unreadable,
)
from grm_client.trainers.reward_config import RewardConfig, is_setup_error
from grm_client.types import Rewards

logger = logging.getLogger(__name__)

DEFAULT_STOP = {"rule": "fixed"}
"""Draw all k samples unless the options say otherwise, as on the server's routes for trainers: a trainer learns from
every reward, but the server's default rule draws fewer samples of responses that cannot be the best."""


@dataclass(frozen=True, slots=True)
class FlatRewards:
    """Rewards of N samples in the trainer's order."""

    rewards: list[float | None]
    """(N,), 1 to 10; None if the sample's group could not be judged."""
    ids: list[str | None]
    """(N,), id of the judgement of the sample's group; None as above."""
    failed_share: float
    """Share of the groups that could not be judged."""
    se: float
    """Mean standard error of the rewards, in points; NaN without rewards."""
    k_used: float
    """Samples per response, mean over the judged groups; 0 without any."""
    failure: GRMClientError | None
    """Error of the first group that failed, or None."""

    def filled(self, config: RewardConfig) -> list[float]:
        """The rewards with `config.failure_reward` in place of None, which some trainers would read as 0, worse than
        any reward. Raises `failure` if the configuration has no such reward."""
        substitute = config.failure_reward
        if self.failure is not None and substitute is None:
            raise self.failure
        return [reward if reward is not None else substitute for reward in self.rewards]  # type: ignore[misc]


async def judge_flat(
    config: RewardConfig,
    prompts: Sequence[Chat],
    completions: Sequence[Chat],
    keys: Sequence[Hashable] | None = None,
) -> FlatRewards:
    """Judge each group in one request. See `into_groups` for the arguments.

    A sample that cannot be read costs its own reward, a request that cannot be judged those of its group. Both are
    logged. Raises APIError if the server would refuse every group for the same reason, such as the
    API key or an option: later steps would fail too.
    """
    skipped = unreadable(prompts, completions, keys)
    if config.thoughts == "drop":
        completions = [
            completion if position in skipped else _without_thoughts(prompt, completion)
            for position, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]
    groups = into_groups(prompts, completions, keys, skip=skipped)
    requests = [{"query": group.query, "responses": group.responses} for group in groups]
    async with config.client() as client:
        options = {"stop": DEFAULT_STOP, **config.request_options()}
        results = await client.score_many(requests, concurrency=config.concurrency, **options)
    # A sample that cannot be read counts as a group that failed.
    failure = _log_failures([*results, *skipped.values()])
    judged = [result if isinstance(result, Rewards) else None for result in results]
    answers = [answer for answer in judged if answer is not None]
    return FlatRewards(
        rewards=in_flat_order(groups, [None if answer is None else answer.rewards for answer in judged], len(skipped)),
        ids=in_flat_order(
            groups, [None if answer is None else [answer.id] * len(answer.rewards) for answer in judged], len(skipped)
        ),
        failed_share=(judged.count(None) + len(skipped)) / max(len(judged) + len(skipped), 1),
        se=fmean(error for answer in answers for error in answer.se) if answers else float("nan"),
        k_used=fmean(answer.k_used for answer in answers) if answers else 0.0,
        failure=failure,
    )


def _without_thoughts(prompt: Chat, completion: Chat) -> str:
    query = read_prompt(prompt)
    return without_thoughts(read_completion(completion), opened=isinstance(query, str) and opens_thought(query))


def _log_failures(results: Sequence[ScoreResult]) -> GRMClientError | None:
    """The first failure. Raises the first one that would recur in every request."""
    failures = [result for result in results if not isinstance(result, Rewards)]
    for failure in failures:
        if is_setup_error(failure):
            raise failure
    if not failures:
        return None
    logger.warning("%d of %d groups could not be judged; the first error: %s", len(failures), len(results), failures[0])
    return failures[0]
