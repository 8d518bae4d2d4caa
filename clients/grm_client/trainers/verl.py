"""Rewards for verl, see docs/trainers/verl.md.

verl passes one sample at a time and spreads the samples of a prompt over processes, so the server gathers the groups.
This module imports verl only in `assemble_rm_scores`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from grm_client.trainers.reward_config import RewardConfig, config_from
from grm_client.trainers.single_rewards import judge_one


class GRMRewardManager:
    """A reward manager; unlike a reward function, it gets a sample's prompt and group. Use it with
    `reward.reward_manager.source=importlib`.

    It has the interface of verl's managers but is not a subclass: the base class would have to be imported here.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: object = None,
        reward_router_address: str | None = None,
        reward_model_tokenizer: object = None,
    ) -> None:
        """Takes verl's arguments. `config.reward.reward_kwargs.grm` may hold fields of `RewardConfig`; they override
        the environment, which Ray does not forward to its workers."""
        settings = (config.reward.get("reward_kwargs") or {}).get("grm") or {}
        self._config = _config(dict(settings))
        # A worker has one event loop, so all its samples can share connections.
        self._client = self._config.client()
        self._tokenizer = tokenizer
        self._size = int(config.actor_rollout_ref.rollout.n)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """The reward of the last sequence in `data`, a DataProto. verl takes the names in `reward_extra_info` from one
        sample and looks them up in all others, so the names are always the same."""
        item = data[-1:][0]
        fields = item.non_tensor_batch
        response_ids = item.batch["responses"]
        length = response_ids.shape[-1]
        generated = response_ids[: int(item.batch["attention_mask"][-length:].sum())]
        response = await asyncio.to_thread(self._tokenizer.decode, generated, skip_special_tokens=True)
        result = await judge_one(
            self._client,
            self._config,
            fields.get("raw_prompt"),
            response,
            label=ground_truth(fields.get("reward_model")),
            group=str(fields.get("uid", "")),
            size=self._size,
        )
        return {
            "reward_score": result.reward,
            "reward_extra_info": {"grm_reward": result.reward, "grm_failed": float(result.failed)},
        }

    @classmethod
    def assemble_rm_scores(cls, data: Any, scores: Sequence[float]) -> Any:
        """Put each reward on the last token of its response, with verl's own function."""
        from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

        return RewardManagerBase.assemble_rm_scores(data, list(scores))


def ground_truth(reward_model: object) -> object:
    """The label in verl's column `reward_model`; None if a row has none, or something else there."""
    return reward_model.get("ground_truth") if isinstance(reward_model, Mapping) else None


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: object,
    extra_info: Mapping[str, Any],
    n: int | None = None,
    prompt_key: str = "question",
    reward_router_address: object = None,
    reward_model_tokenizer: object = None,
    **config: Any,
) -> dict[str, float]:
    """A custom reward function, if another reward manager must be used.

    verl passes neither the prompt nor the group to such a function. The data set's `extra_info` must hold the prompt.

    n: number of samples of a prompt.
    prompt_key: key of the prompt in `extra_info`.
    config: fields of `RewardConfig`, from `reward.custom_reward_function.reward_kwargs`.

    Raises KeyError if `extra_info` has no prompt.
    """
    reward_config = _config(config)
    async with reward_config.client() as client:
        result = await judge_one(
            client, reward_config, extra_info[prompt_key], solution_str, label=ground_truth, size=n
        )
    return {"score": result.reward, "grm_failed": float(result.failed)}


def _config(settings: Mapping[str, Any]) -> RewardConfig:
    return replace(config_from(os.environ), **settings)
