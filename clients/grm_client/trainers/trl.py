"""Rewards for TRL, see docs/trainers/trl.md.

    trl grpo --reward_funcs grm_client.trl.grm_reward ...        with GRM_CLIENT_URL=http://host:8000

    trainer = GRPOTrainer(reward_funcs=make_grm_reward("http://host:8000", k=8), ...)

GRPO and RLOO pass all samples of a process and step in one call, AsyncGRPO one group, and OnlineDPO pairs whose members
stand apart. In all of them, samples with equal prompts form a group.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from grm_client.trainers.group_rewards import judge_flat
from grm_client.trainers.groups import Chat
from grm_client.trainers.reward_config import RewardConfig, config_from


async def grm_reward(
    prompts: Sequence[Chat],
    completions: Sequence[Chat],
    *,
    grm_config: RewardConfig | None = None,
    log_extra: Callable[[str, list[Any]], None] | None = None,
    log_metric: Callable[[str, float], None] | None = None,
    **columns: object,
) -> list[float | None]:
    """The reward of each completion, 1 to 10, or None if its group could not be judged; TRL then leaves the sample out
    of the step.

    grm_config: None reads the environment.
    log_extra, log_metric: TRL's logging functions, if it has them. TRL requires every process to log the same names.
    columns: data set columns, token ids and other arguments of TRL; ignored.
    """
    judged = await judge_flat(grm_config or config_from(os.environ), prompts, completions)
    if log_extra is not None:
        log_extra("grm_id", judged.ids)
    if log_metric is not None:
        log_metric("grm/failed_share", judged.failed_share)
        log_metric("grm/se", judged.se)
        log_metric("grm/k_used", judged.k_used)
    return judged.rewards


def grm_reward_sync(
    prompts: Sequence[Chat], completions: Sequence[Chat], *, grm_config: RewardConfig | None = None, **columns: object
) -> list[float]:
    """`grm_reward` for OnlineDPO, which takes no asynchronous functions and reads None as 0, worse than any reward.
    Both responses of a pair that could not be judged get `failure_reward`, a tie."""
    config = grm_config or config_from(os.environ)
    # In a separate thread, because a notebook's main thread already runs an event loop.
    with ThreadPoolExecutor(1) as thread:
        judged = thread.submit(asyncio.run, judge_flat(config, prompts, completions)).result()
    return judged.filled(config)


def make_grm_reward(url: str, **settings: Any) -> Callable[..., Coroutine[Any, Any, list[float | None]]]:
    """`grm_reward` with its own configuration instead of the environment's, e.g. to use several judges.

    settings: fields of `RewardConfig`.

    The result can be pickled, which AsyncGRPO requires.
    """
    return partial(grm_reward, grm_config=RewardConfig(url=url, **settings))
