"""What tables, tokenizers and balancers give: an odd sample costs itself or its group, never the batch."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import random
import runpy
import sys
from decimal import Decimal
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

import grm_client
from grm_client import AsyncGRMClient, InvalidRequest
from grm_client.plain import label_text
from grm_client.rule_reward import compute_score as rule_score
from grm_client.rule_reward import grm_rule_reward
from grm_client.slime import grm_group_rm
from grm_client.swift import GRMReward
from grm_client.trainers.reward_config import NEUTRAL, RewardConfig
from grm_client.transport import encoded, retry_delay
from grm_client.trl import grm_reward, grm_reward_sync
from grm_client.verl import GRMRewardManager, compute_score
from tests.unit.conftest import Answer

HALF = "a\udc97"
AGENT = Path(grm_client.__file__).parent / "plugins" / "grm_openrlhf.py"


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (np.int64(4), "4"),
        (np.float64(0.5), "0.5"),
        (np.str_("x"), "x"),
        (np.bytes_(b"x"), "x"),
        (np.array(["4", "four"]), '["4", "four"]'),
        (np.array(4), "4"),
        (np.array([{"a": np.array([1])}], dtype=object), '[{"a": [1]}]'),
        (np.longdouble(2), "2.0"),
        (math.nan, None),
        (np.float32("nan"), None),
        (None, None),
        (b"\xc3\xa9", "\u00e9"),
        (Decimal("4.0"), "4.0"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        ({"a": np.int64(1), "b": math.nan}, '{"a": 1, "b": null}'),
        ({2, 1}, "[1, 2]"),
        (True, "true"),
    ],
)
def test_labels_of_tables_are_shown_as_their_values(label: Any, text: str | None) -> None:
    assert label_text(label) == text


def test_a_missing_value_of_pandas_is_no_label() -> None:
    assert label_text(type("NAType", (), {})()) is None


def test_what_json_cannot_hold_is_an_invalid_request_that_quotes_nothing() -> None:
    for body in ({"q": f"SECRET {HALF}"}, {"q": math.nan}, {"q": object()}, {"q": {1, 2}}):
        with pytest.raises(InvalidRequest) as caught:
            encoded(body)
        assert "SECRET" not in str(caught.value)
    assert json.loads(encoded({"seed": np.int64(3), "x": np.array(["a"])})) == {"seed": 3, "x": ["a"]}


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxys_error_is_retried_and_the_servers_own_is_not(status: int) -> None:
    request = httpx.Request("POST", "http://judge")
    page = httpx.Response(status, html="<html>Bad Gateway</html>", request=request)
    ours = httpx.Response(status, json={"error": {"code": "too_few_votes", "message": "m"}}, request=request)
    assert retry_delay(0, page, random.Random(0)) is not None
    assert retry_delay(0, ours, random.Random(0)) is None


class Sample:
    def __init__(self, prompt: Any, response: Any, label: Any, group_index: Any) -> None:
        self.prompt, self.response, self.label, self.group_index = prompt, response, label, group_index
        self.remove_sample = False


@pytest.fixture
def server(answer: Answer) -> Any:
    """Gives each response 7 points."""

    def respond(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if "response" in body:
            return httpx.Response(200, json={"reward": 7.0, "judgement": "j"})
        n = len(body["responses"])
        return httpx.Response(200, json=answer(rewards=[7.0] * n, se=[0.1] * n))

    return httpx.MockTransport(respond)


ODD = st.sampled_from(
    [HALF, None, math.nan, 3, b"x", b"\xff", np.str_("x"), np.int64(4), np.float32("nan"), np.array(["a"]), object()]
    + [
        [],
        {},
        [None],
        [{"role": 3, "content": math.nan}],
        [{"content": HALF}],
        np.array([{"role": "user"}], dtype=object),
    ]
)


class Rollout:
    """verl's DataProto of one sequence, as far as the manager reads it."""

    def __init__(self, **fields: Any) -> None:
        self.non_tensor_batch = fields
        self.batch = {"responses": np.array([7, 7, 0]), "attention_mask": np.array([1, 1, 1, 0])}

    def __getitem__(self, _: slice) -> list[Rollout]:
        return [self]


class Tokenizer:
    def decode(self, ids: Any, *, skip_special_tokens: bool) -> str:
        return "A."


VERL = SimpleNamespace(reward={"reward_kwargs": None}, actor_rollout_ref=SimpleNamespace(rollout=SimpleNamespace(n=1)))


async def verl_reward(prompt: Any, model: Any, uid: Any) -> float:
    result = await GRMRewardManager(VERL, Tokenizer()).run_single(
        Rollout(raw_prompt=prompt, reward_model=model, uid=uid)
    )
    assert result["reward_extra_info"].keys() == {"grm_reward", "grm_failed"}
    assert math.isfinite(result["reward_score"])
    return float(result["reward_score"])


class SingleTurn:
    """OpenRLHF's executor: it has generated "A."."""

    async def execute(self, *_: Any) -> dict[str, Any]:
        return {"action_ranges": [(1, 3)], "observation_tokens": [5, 7, 7], "reward": None}


async def openrlhf_reward(prompt: Any, label: Any) -> float:
    agent = ModuleType("openrlhf.utils.agent")
    agent.SingleTurnAgentExecutor = SingleTurn  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("openrlhf", "openrlhf.utils"):
            patch.setitem(sys.modules, name, ModuleType(name))
        patch.setitem(sys.modules, "openrlhf.utils.agent", agent)
        module = runpy.run_path(str(AGENT))
    output = await module["AgentExecutor"]().execute(prompt, label, None, 9, Tokenizer(), None)
    assert output["extra_logs"].keys() == {"grm_failed"}
    assert math.isfinite(output["reward"])
    return float(output["reward"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=ODD | st.just("p"), completion=ODD, label=ODD, key=st.sampled_from([None, 3, math.nan, [1]]))
def test_no_function_loses_a_sound_sample_to_an_odd_one(
    prompt: Any, completion: Any, label: Any, key: Any, server: httpx.MockTransport
) -> None:
    """150 cases, each of which calls ten functions."""

    def client(self: RewardConfig) -> AsyncGRMClient:
        return AsyncGRMClient(transport=server)

    async def all_functions() -> None:
        prompts, completions = ["sound", prompt, "sound"], ["a", completion, "b"]
        rewards = await grm_reward(prompts, completions)
        assert [rewards[0], rewards[2]] == [7.0, 7.0]
        assert rewards[1] in (7.0, None)
        tied = grm_reward_sync(prompts, completions)
        assert [tied[0], tied[2]] == [7.0, 7.0]
        assert tied[1] in (7.0, NEUTRAL)
        turn = [{"role": "user", "content": "sound"}, {"role": "assistant", "content": "a"}]
        swift = await GRMReward()(completions, [turn, prompt, turn], ["1", key, "1"])
        assert [swift[0], swift[2]] == [7.0, 7.0]
        samples = [Sample(p, c, label if p is prompt else "l", 1) for p, c in zip(prompts, completions, strict=True)]
        slime = await grm_group_rm(None, samples)
        assert [slime[0], slime[2]] == [7.0, 7.0]
        assert [sample.remove_sample for sample in samples] == [False, slime[1] == NEUTRAL, False]
        verl = await compute_score("d", completion, label, {"question": prompt})
        assert verl["score"] in (7.0, NEUTRAL)
        assert await verl_reward(prompt, label, key) in (7.0, NEUTRAL)
        assert await verl_reward("p", {"ground_truth": label}, "u") in (7.0, NEUTRAL)
        assert await openrlhf_reward(prompt, label) in (7.0, NEUTRAL)
        box = r"\boxed{9, 1}"
        assert grm_rule_reward([box, completion, box], [0, label, 1], [2, key, 2])[::2] == [1.0, -1.0]
        assert rule_score("d", completion, label, {"num_responses": key}) in (1.0, 0.0, -1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RewardConfig, "client", client)
        asyncio.run(all_functions())
    event("ten functions called")
