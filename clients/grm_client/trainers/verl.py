"""Rewards for verl, see docs/trainers/verl.md.

verl hands over one sample at a time and spreads the samples of a prompt over processes, so that the server gathers the
groups. verl is imported when one of its objects is needed.
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
    """A reward manager, which knows a sample's prompt and its group: `reward.reward_manager.source=importlib`.

    It is what verl asks of one and not a subclass, whose base would have to be imported here.
    """

    def __init__(
        self,
        config: Any,
        tokenizer: Any,
        compute_score: object = None,
        reward_router_address: str | None = None,
        reward_model_tokenizer: object = None,
    ) -> None:
        """verl's arguments. `config.reward.reward_kwargs.grm` may hold fields of `RewardConfig`; they go before the
        environment, which Ray does not pass on by itself."""
        given = (config.reward.get("reward_kwargs") or {}).get("grm") or {}
        self._config = _config(dict(given))
        # A worker has one event loop, so that all its samples can share connections.
        self._client = self._config.client()
        self._tokenizer = tokenizer
        self._size = int(config.actor_rollout_ref.rollout.n)

    async def run_single(self, data: Any) -> dict[str, Any]:
        """The reward of the last sequence of `data`, a DataProto. verl reads the names in `reward_extra_info` off one
        sample and looks them up in all, so that they are always the same."""
        item = data[-1:][0]
        fields = item.non_tensor_batch
        response_ids = item.batch["responses"]
        length = response_ids.shape[-1]
        written = response_ids[: int(item.batch["attention_mask"][-length:].sum())]
        response = await asyncio.to_thread(self._tokenizer.decode, written, skip_special_tokens=True)
        single = await judge_one(
            self._client,
            self._config,
            list(fields["raw_prompt"]),
            response,
            label=fields["reward_model"].get("ground_truth"),
            group=str(fields.get("uid", "")),
            size=self._size,
        )
        return {
            "reward_score": single.reward,
            "reward_extra_info": {"grm_reward": single.reward, "grm_failed": float(single.failed)},
        }

    @classmethod
    def assemble_rm_scores(cls, data: Any, scores: Sequence[float]) -> Any:
        """verl's own way to put a reward on the last token of each response."""
        from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase

        return RewardManagerBase.assemble_rm_scores(data, list(scores))


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
    """A custom reward function, for those who cannot change the manager.

    verl passes neither prompt nor group to such a function: the prompt must stand in the data set's `extra_info`.

    n: samples of a prompt.
    prompt_key: where in `extra_info` the prompt is.
    config: fields of `RewardConfig`, from `reward.custom_reward_function.reward_kwargs`.

    Raises KeyError where the prompt is not there.
    """
    ours = _config(config)
    async with ours.client() as client:
        single = await judge_one(client, ours, extra_info[prompt_key], solution_str, label=ground_truth, size=n)
    return {"score": single.reward, "grm_failed": float(single.failed)}


def _config(given: Mapping[str, Any]) -> RewardConfig:
    return replace(config_from(os.environ), **given)
