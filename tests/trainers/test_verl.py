"""verl 0.9.1: its reward loop with our manager and with our function, and the reward tensor."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from verl import DataProto
from verl.experimental.reward_loop.reward_loop import RewardLoopWorker
from verl.trainer.ppo.reward import resolve_reward_manager_cls

from tests.trainers.conftest import OPTIONS, TOO_LONG, Gathered
from tests.trainers.tokens import byte_tokenizer

OURS = {"source": "importlib", "name": "GRMRewardManager", "module": {"path": "pkg://grm_client.verl"}}
VERLS = {"source": "register", "name": "naive", "module": {"path": None}}
NO_FUNCTION = {"path": None, "name": "compute_score"}


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tokenizer")
    byte_tokenizer().save_pretrained(path)
    return path


def config(path: Path, reward: dict[str, Any]) -> DictConfig:
    return OmegaConf.create(
        {
            "actor_rollout_ref": {"model": {"path": str(path), "tokenizer_path": None}, "rollout": {"n": 3}},
            "reward": {"custom_reward_function": NO_FUNCTION, "reward_model": {"enable": False}, **reward},
        }
    )


def rollouts(samples: list[tuple[str, str, str]]) -> DataProto:
    """A batch from (uid, prompt, response) tuples, padded as in verl: prompts on the left, responses on the right."""
    tokenizer = byte_tokenizer()
    prompts = tokenizer([prompt for _, prompt, _ in samples], padding=True, padding_side="left", return_tensors="pt")
    responses = tokenizer([text for _, _, text in samples], padding=True, padding_side="right", return_tensors="pt")
    columns = {
        "uid": [uid for uid, _, _ in samples],
        "raw_prompt": [[{"role": "user", "content": prompt}] for _, prompt, _ in samples],
        "data_source": ["test"] * len(samples),
        "reward_model": [{"style": "model", "ground_truth": ""}] * len(samples),
        "extra_info": [{"question": prompt} for _, prompt, _ in samples],
    }
    non_tensors = {}
    for name, values in columns.items():
        non_tensors[name] = np.empty(len(values), dtype=object)
        non_tensors[name][:] = values
    tensors = {
        "prompts": prompts["input_ids"],
        "responses": responses["input_ids"],
        "attention_mask": torch.cat([prompts["attention_mask"], responses["attention_mask"]], dim=1),
    }
    return DataProto.from_dict(tensors=tensors, non_tensors=non_tensors)


SAMPLES = [
    ("1", "p", "a"), ("2", "p", "dd"), ("1", "p", "bbb"), ("3", "q", "e"), ("2", "p", "e"),
    ("1", "p", "cc"), ("3", "q", "f"), ("2", "p", "f"), ("3", "q", "e"),
]  # fmt: skip


def loop(settings: DictConfig, data: DataProto) -> list[dict[str, Any]]:
    """Score as verl's reward manager does, with the samples of a prompt spread over workers."""

    async def run() -> list[dict[str, Any]]:
        workers = [RewardLoopWorker(settings) for _ in range(3)]
        async with asyncio.TaskGroup() as group:
            calls = [workers[i % 3].compute_score(data[i : i + 1]) for i in range(len(data))]
            tasks = [group.create_task(call) for call in calls]
        return [task.result() for task in tasks]

    return asyncio.run(run())


def test_our_manager_in_verls_reward_loop(tokenizer_path: Path, url: str, gathered: Gathered) -> None:
    settings = config(tokenizer_path, {"reward_manager": OURS, "reward_kwargs": {"grm": {"url": url, "k": 4}}})
    data = rollouts(SAMPLES)
    outputs = loop(settings, data)
    scores = [output["reward_score"] for output in outputs]
    # The same prompt with two uids is two groups. The same text twice in a group gets the same reward.
    chat = {prompt: [{"role": "user", "content": prompt}] for prompt in "pq"}
    gathered([scores[i] for i in (0, 2, 5)], chat["p"], "a", "bbb", "cc")
    gathered([scores[i] for i in (1, 4, 7)], chat["p"], "dd", "e", "f")
    gathered([scores[i] for i in (3, 6)], chat["q"], "e", "f")
    assert scores[3] == scores[8]
    assert all(output["reward_extra_info"].keys() == {"grm_reward", "grm_failed"} for output in outputs)
    tensor = resolve_reward_manager_cls(settings).assemble_rm_scores(data, scores)
    last = [len(response) - 1 for _, _, response in SAMPLES]
    assert tensor.shape == data.batch["responses"].shape
    assert tensor[range(len(SAMPLES)), last].tolist() == pytest.approx(scores)
    assert tensor.sum().item() == pytest.approx(sum(scores))


@pytest.mark.parametrize("failure", [5.5, None])
def test_a_group_that_cannot_be_judged(tokenizer_path: Path, url: str, failure: float | None) -> None:
    ours = {"url": url, "k": 4, "failure_reward": failure}
    settings = config(tokenizer_path, {"reward_manager": OURS, "reward_kwargs": {"grm": ours}})
    data = rollouts([("9", TOO_LONG, text) for text in "abc"])
    if failure is None:
        with pytest.raises(ExceptionGroup) as caught:
            loop(settings, data)
        assert "not judged" in str(caught.value.exceptions[0])
        return
    for output in loop(settings, data):
        assert output["reward_score"] == 5.5
        assert output["reward_extra_info"] == {"grm_reward": 5.5, "grm_failed": 1.0}


def test_our_function_in_verls_manager(tokenizer_path: Path, url: str, gathered: Gathered) -> None:
    function = {
        "path": "pkg://grm_client.verl",
        "name": "compute_score",
        "reward_kwargs": {"url": url, "n": 3, "options": OPTIONS | {"seed": 8}},
    }
    settings = config(tokenizer_path, {"reward_manager": VERLS, "custom_reward_function": function})
    outputs = loop(settings, rollouts([("1", "why", text) for text in ("a", "bb", "ccc")]))
    scores = [output["reward_score"] for output in outputs]
    assert all(
        output["reward_extra_info"] == {"score": s, "grm_failed": 0} for output, s in zip(outputs, scores, strict=True)
    )
    assert len(set(scores)) > 1
