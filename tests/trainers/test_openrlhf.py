"""OpenRLHF 0.11.2: its executor with a URL, and our agent, up to the advantages of the experience maker."""

from __future__ import annotations

import asyncio
import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import transformers  # noqa: F401  before the fake packages exist, because it probes for some of them

import grm_client
from tests.trainers.conftest import TOO_LONG, Gathered
from tests.trainers.tokens import USER, byte_tokenizer

AGENT = Path(grm_client.__file__).parent / "plugins" / "grm_openrlhf.py"
OPTIONS = "n=3&k=4&stop=fixed&seed=7"
NEED_A_GPU = frozenset({"vllm", "deepspeed", "flash_attn", "peft", "torchdata", "optimum", "liger_kernel"})
"""Imported by the experience maker's modules, but not called in these tests."""


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        fake = name.partition(".")[0] in NEED_A_GPU
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if fake else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@pytest.fixture(scope="module", autouse=True)
def fake_packages() -> Iterator[None]:
    finder = _Finder()
    sys.meta_path.append(finder)
    yield
    sys.meta_path.remove(finder)


class Engine:
    """Returns a fixed text in vLLM's format."""

    def __init__(self, text: str) -> None:
        self.text = text

    async def generate(self, prompt_token_ids: list[int], params: Any, multi_modal_data: Any = None) -> Any:
        ids = byte_tokenizer()(self.text + "<|im_end|>")["input_ids"]
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, finish_reason="stop", logprobs=None)])


def executors(url: str) -> dict[str, Any]:
    agent = importlib.import_module("openrlhf.utils.agent")
    engine = importlib.import_module("openrlhf.trainer.ray.vllm_engine")
    return {
        "url": agent.SingleTurnAgentExecutor(f"{url}/get_reward?{OPTIONS}"),
        "agent": engine._load_agent_executor(str(AGENT)),
    }


def advantages(executor: Any, prompts: dict[str, list[str]]) -> tuple[list[Any], list[Any]]:
    """(executor responses, experiences with advantages) for three samples of each prompt."""
    tokenizer = byte_tokenizer()
    sampling = SimpleNamespace(max_tokens=64, logprobs=None)

    async def rollout() -> list[Any]:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(executor.execute(USER.format(prompt), "", sampling, 10**6, tokenizer, Engine(text)))
                for prompt, texts in prompts.items()
                for text in texts
            ]
        return [task.result() for task in tasks]

    responses = asyncio.run(rollout())
    generator = importlib.import_module("openrlhf.trainer.ppo_utils.samples_generator").SamplesGenerator
    experiences = [generator._process_response_into_experience(None, each, max_len=10**6) for each in responses]
    module = importlib.import_module("openrlhf.trainer.ppo_utils.experience_maker")
    maker_class = next(c for c in vars(module).values() if hasattr(c, "compute_advantages_and_returns"))
    maker = maker_class.__new__(maker_class)
    arguments = MagicMock()
    arguments.train.dynamic_batch_enable = False
    arguments.rollout.micro_batch_size = 2
    arguments.rollout.n_samples_per_prompt = 3
    arguments.reward.clip_range = None
    arguments.reward.overlong_buffer_len = None
    arguments.reward.stop_properly_penalty_coef = None
    arguments.algo.advantage.estimator = "rloo"
    arguments.algo.advantage.gamma = 1.0
    arguments.algo.advantage.no_whitening = True
    maker.args = arguments
    maker.strategy = SimpleNamespace(args=arguments)
    maker.tokenizer = tokenizer
    maker.kl_ctl = SimpleNamespace(value=0.0)
    maker.advantage_estimator = "rloo"
    batches = maker.split_rollout_samples(experiences)
    for batch in batches:
        batch.kl = torch.zeros_like(batch.action_mask, dtype=torch.float32)
    return responses, maker.compute_advantages_and_returns(batches)


@pytest.mark.parametrize("kind", ["url", "agent"])
def test_the_rewards_and_advantages_of_the_experience_maker(kind: str, url: str, gathered: Gathered) -> None:
    prompts = {f"Why, {kind}?": ["a", "bb", "ccc"], f"How, {kind}?": ["d", "ee", "fff"]}
    _, batches = advantages(executors(url)[kind], prompts)
    rewards = torch.cat([batch.rewards for batch in batches]).flatten()
    assert rewards.shape == (6,)
    for place, (prompt, texts) in enumerate(prompts.items()):
        gathered(rewards[3 * place : 3 * place + 3].tolist(), [{"role": "user", "content": prompt}], *texts)
    for batch in batches:
        assert torch.isfinite(batch.advantages).all()
        assert set(batch.info) >= {"reward", "score", "grm_failed"}
    groups = rewards.reshape(2, 3)
    expected = groups - (groups.sum(-1, keepdim=True) - groups) / 2
    got = [batch.advantages[i][batch.action_mask[i].bool()][0] for batch in batches for i in range(len(batch.index))]
    torch.testing.assert_close(torch.stack(got), expected.flatten())


@pytest.mark.parametrize("kind", ["url", "agent"])
def test_a_group_that_cannot_be_judged_has_advantages_of_zero(kind: str, url: str) -> None:
    prompts = {f"{kind} {TOO_LONG}": ["a", "bb", "ccc"], f"When, {kind}?": ["d", "ee", "fff"]}
    responses, batches = advantages(executors(url)[kind], prompts)
    rewards = torch.cat([batch.rewards for batch in batches]).flatten().tolist()
    assert rewards[:3] == [5.5] * 3
    assert len({frozenset(response["extra_logs"]) for response in responses}) == 1
    failed = [torch.as_tensor(response["extra_logs"]["grm_failed"]).item() for response in responses]
    assert failed == [1, 1, 1, 0, 0, 0]
