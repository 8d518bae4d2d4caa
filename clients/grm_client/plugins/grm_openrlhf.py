"""Agent for OpenRLHF's `--train.agent_func_path`: generates as OpenRLHF does and requests the reward from the server.

Advantages over `--reward.remote_url`: it cuts out the response by tokens instead of text; it uses the configuration's
API key and retries; and it gives a number to a sample that could not be judged, while OpenRLHF's own call leaves None,
on which the experience maker fails.
"""

from __future__ import annotations

import os
from typing import Any

from openrlhf.utils.agent import SingleTurnAgentExecutor

from grm_client.trainers.reward_config import config_from
from grm_client.trainers.single_rewards import judge_one


class AgentExecutor(SingleTurnAgentExecutor):  # type: ignore[misc]
    """OpenRLHF requires this name and this base class."""

    def __init__(self) -> None:
        # Without a URL, the base class requests no reward.
        super().__init__()
        self._config = config_from(os.environ)
        # A rollout actor has one executor and one event loop, so all samples can share connections.
        self._client = self._config.client()

    async def execute(
        self,
        prompt: str,
        label: str | None,
        sampling_params: Any,
        max_length: int,
        hf_tokenizer: Any,
        llm_engine: Any,
        images: Any = None,
    ) -> dict[str, Any]:
        """The output of OpenRLHF's executor, with the reward. OpenRLHF requires the same `extra_logs` names for every
        sample."""
        output: dict[str, Any] = await super().execute(
            prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images
        )
        start, end = output["action_ranges"][-1]
        response = hf_tokenizer.decode(output["observation_tokens"][start:end], skip_special_tokens=True)
        # Not `label or None`: an array has no truth value.
        reference = None if isinstance(label, str) and not label else label
        result = await judge_one(self._client, self._config, prompt, response, label=reference)
        logs = {"grm_failed": float(result.failed)}
        return output | {"reward": result.reward, "scores": result.reward, "extra_logs": logs}
