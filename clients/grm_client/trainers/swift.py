"""Rewards for ms-swift, see docs/trainers/ms-swift.md. The file to pass to it is `plugins/grm_ms_swift.py`."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from grm_client.trainers.group_rewards import judge_flat
from grm_client.trainers.reward_config import config_from


class GRMReward:
    """An AsyncORM, of which ms-swift asks these two methods and no base class. It starts a loop for each call."""

    def __init__(self, args: object = None, **rest: object) -> None:
        """Arguments are ms-swift's; the configuration is the environment's."""

    async def __call__(
        self,
        completions: Sequence[str],
        messages: Sequence[Sequence[Mapping[str, Any]]],
        prompt_id: Sequence[Hashable] | None = None,
        **columns: object,
    ) -> list[float]:
        """The reward of each completion, 1 to 10. Where its group could not be judged it is `failure_reward`: ms-swift
        would take None, but adds it up as 0.

        messages: the conversation of each sample, of which the completion is the last turn.
        prompt_id: ms-swift's name for the sample's group.
        """
        prompts = [conversation[:-1] for conversation in messages]
        config = config_from(os.environ)
        return (await judge_flat(config, prompts, completions, prompt_id)).numbers(config)
