"""TRL 1.16.0: GRPO, RLOO, AsyncGRPO and OnlineDPO use the judge's rewards."""

from __future__ import annotations

import asyncio
import functools
import importlib
import math
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer, RLOOTrainer

from grm_client.trl import grm_reward, grm_reward_sync, make_grm_reward
from tests.trainers.conftest import OPTIONS, TOO_LONG, Direct

PROMPTS = ["why is the sky blue", "what is two plus two"]


@pytest.fixture(scope="module")
def policy() -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    """A policy with random weights and the prompts' words as its vocabulary."""
    words = ["<pad>", "<eos>", "<unk>", *" ".join(PROMPTS).split()]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(words))}, "<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config), fast


def trainer(policy: Any, folder: Path, reward: Any) -> GRPOTrainer:
    model, tokenizer = policy
    arguments = GRPOConfig(
        output_dir=str(folder), use_cpu=True, report_to="none", max_steps=2, logging_steps=1, num_generations=4,
        per_device_train_batch_size=8, max_completion_length=6, save_strategy="no", disable_tqdm=True,
    )  # fmt: skip
    data = Dataset.from_list([{"prompt": prompt, "config": "a column of the data"} for prompt in PROMPTS])
    return GRPOTrainer(model, reward, arguments, data, processing_class=tokenizer)


def test_grpo_trains_on_the_rewards(policy: Any, tmp_path: Path) -> None:
    grpo = trainer(policy, tmp_path, grm_reward)
    grpo.train()
    steps = [entry for entry in grpo.state.log_history if "reward" in entry]
    assert len(steps) == 2
    for step in steps:
        assert 1 <= step["rewards/grm_reward/mean"] <= 10
        assert step["grm/failed_share"] == 0
        assert step["grm/k_used"] == 4
        assert 0 < step["grm/se"] < 10


@pytest.mark.parametrize("kind", [GRPOTrainer, RLOOTrainer])
@pytest.mark.parametrize("form", ["text", "chat"])
def test_calculate_rewards(kind: Any, form: str, policy: Any, tmp_path: Path, url: str, direct: Direct) -> None:
    """Two groups, a group that cannot be judged, and a part of a group that was split between ranks."""
    reward = make_grm_reward(url, options=OPTIONS)
    grpo = trainer(policy, tmp_path, [grm_reward, reward])
    texts = ["p", "p", "p", "q", "q", TOO_LONG, TOO_LONG, "r"]
    answers = ["a", "b", "a", "c", "d", "e", "f", "g"]
    prompts: list[Any] = texts
    completions: list[Any] = answers
    if form == "chat":
        prompts = [[{"role": "user", "content": text}] for text in texts]
        completions = [[{"role": "assistant", "content": text}] for text in answers]
    inputs = [{"prompt": prompt, "solution": "s"} for prompt in prompts]
    got = kind._calculate_rewards(grpo, inputs, prompts, completions, [[0]] * 8)
    p, q, r = direct("p", "a", "b"), direct("q", "c", "d"), direct("r", "g")
    expected = torch.tensor([p[0], p[1], p[0], *q, math.nan, math.nan, *r])
    for column in range(2):
        torch.testing.assert_close(got[:, column], expected, equal_nan=True)


def test_async_grpo_scores_a_group(url: str, direct: Direct) -> None:
    worker = importlib.import_module("trl.experimental.async_grpo.async_rollout_worker")
    loop = next(c for c in vars(worker).values() if isinstance(c, type) and hasattr(c, "_score_group"))
    # AsyncGRPO sends it to another process.
    rewards = [pickle.loads(pickle.dumps(make_grm_reward(url, k=4, options=OPTIONS))), grm_reward]
    worker_state = SimpleNamespace(
        reward_funcs=rewards,
        reward_func_names=["a", "b"],
        _env_reward_types=[],
        _provides_rollout_reward=False,
    )
    one = SimpleNamespace(input_ids=[0], completion_mask=[1], old_log_probs=[0.0])
    chat = [[{"role": "user", "content": "p"}]] * 3
    group = worker.RolloutGroup(
        prompts=chat,
        reward_kwargs={"solution": ["s"] * 3},
        completions=[[{"role": "assistant", "content": text}] for text in "abc"],
        completions_ids=[[0]] * 3,
        completions_sequences=[[one]] * 3,
        tool_call_counts=[0] * 3,
        tool_failure_counts=[0] * 3,
        model_version=0,
        group_id=0,
        env_rewards=[],
        rollout_rewards=[],
    )
    samples = asyncio.run(loop._score_group(worker_state, group))
    expected = direct("p", "a", "b", "c")
    assert [sample.metrics["rewards/b"] for sample in samples] == pytest.approx(expected)
    assert [sample.metrics["reward"] for sample in samples] == pytest.approx([2 * reward for reward in expected])


def test_online_dpo_pairs(direct: Direct) -> None:
    dpo = importlib.import_module("trl.experimental.online_dpo").OnlineDPOTrainer
    trainer_state = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu"),
        reward_funcs=[grm_reward_sync],
        reward_processing_classes=[None],
        reward_weights=torch.ones(1),
        state=None,
    )
    prompts = ["p", "q", TOO_LONG] * 2
    got = dpo._calculate_rewards_from_functions(trainer_state, prompts, ["a", "c", "e", "b", "d", "f"], [[0]] * 6)
    p, q = direct("p", "a", "b"), direct("q", "c", "d")
    # TRL would read None as 0, so the pair that could not be judged is a tie at 5.5.
    assert got.tolist() == pytest.approx([p[0], q[0], 5.5, p[1], q[1], 5.5])


def test_trl_detects_which_functions_are_asynchronous() -> None:
    is_async = importlib.import_module("trl.trainer.utils").is_async_callable
    made = make_grm_reward("http://127.0.0.1:1")
    assert isinstance(made, functools.partial)
    assert is_async(grm_reward)
    assert is_async(made)
    assert not is_async(grm_reward_sync)
