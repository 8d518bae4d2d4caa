"""Rewards for ms-swift, see docs/trainers/ms-swift.md. ms-swift loads them through `plugins/grm_ms_swift.py`."""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from grm_client.plain import unwrapped
from grm_client.trainers.group_rewards import judge_flat
from grm_client.trainers.reward_config import config_from


class GRMReward:
    """An AsyncORM for ms-swift, which requires these two methods but no base class. Each call runs in a new event
    loop."""

    def __init__(self, args: object = None, **rest: object) -> None:
        """Takes ms-swift's arguments and ignores them: the configuration comes from the environment."""

    async def __call__(
        self,
        completions: Sequence[str],
        messages: Sequence[Sequence[Mapping[str, Any]]],
        prompt_id: Sequence[Hashable] | None = None,
        **columns: object,
    ) -> list[float]:
        """Reward of each completion, 1 to 10, or `failure_reward` if its group could not be judged. ms-swift accepts
        None, but adds it up as 0.

        messages: the conversation of each sample; its last turn is the completion.
        prompt_id: ms-swift's name of each sample's group.
        """
        prompts = [_prompt_of(conversation) for conversation in messages]
        config = config_from(os.environ)
        return (await judge_flat(config, prompts, completions, prompt_id)).filled(config)


def _prompt_of(conversation: Any) -> Any:
    """The conversation without its last turn; anything else itself, which costs that sample its reward."""
    return conversation[:-1] if isinstance(unwrapped(conversation), list) else None
