"""For OpenRLHF's `--train.agent_func_path`: generates as OpenRLHF does and asks the server for the reward.

Over `--reward.remote_url` it has three things: the response is cut out by its tokens and not by its text, a key and
retries of the configuration are used, and a sample without a reward gets a number, where OpenRLHF's own call leaves
None for the experience maker to fail on.
"""

from __future__ import annotations

import os
from typing import Any

from openrlhf.utils.agent import SingleTurnAgentExecutor

from grm_client.trainers.reward_config import config_from
from grm_client.trainers.single_rewards import judge_one


class AgentExecutor(SingleTurnAgentExecutor):  # type: ignore[misc]
    """OpenRLHF looks for this name, and for a subclass of its own class."""

    def __init__(self) -> None:
        # Without an address, so that it leaves the reward to us.
        super().__init__()
        self._config = config_from(os.environ)
        # A rollout actor has one executor and one event loop, so that all samples can share connections.
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
        """What OpenRLHF's executor returns, with the reward. `extra_logs` has the same names for every sample, which
        OpenRLHF needs."""
        output: dict[str, Any] = await super().execute(
            prompt, label, sampling_params, max_length, hf_tokenizer, llm_engine, images
        )
        start, end = output["action_ranges"][-1]
        response = hf_tokenizer.decode(output["observation_tokens"][start:end], skip_special_tokens=True)
        single = await judge_one(self._client, self._config, prompt, response, label=label or None)
        logs = {"grm_failed": float(single.failed)}
        return output | {"reward": single.reward, "scores": single.reward, "extra_logs": logs}
