"""NeMo-Gym's resources server and NeMo-RL's pairwise GenRM."""

import asyncio
import json
from typing import Any

import pytest

from grm_server.engine.fake import FakeEngine
from grm_server.errors import EngineDead
from grm_server.grm.script import plain
from tests.integration.conftest import Serve
from tests.integration.counting import counters
from tests.integration.judging import favours
from tests.integration.nemo import genrm, member, response, rollout
from tests.integration.trainers import FAST, all_at_once, post

CHAT = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]


async def test_verify_echoes_the_rollout(serve: Serve) -> None:
    body = rollout("A.", _ng_task_index=3, _ng_rollout_index=0, prompt_id=None)
    engine = FakeEngine(["7}"] * 2)
    async with serve(engine, *FAST) as client:
        answer = await post(client, body, "/verify")
    added = {name: answer.pop(name) for name in list(answer) if name not in body}
    assert answer == body
    assert set(added) == {"reward", "grm_judgement", "grm_group_size", "grm_se", "grm_k_used"}
    assert added["reward"] == 7.0
    assert "SECRET THOUGHT" not in engine.calls[0][0].prompt


async def test_a_cohort(serve: Serve) -> None:
    async with serve(FakeEngine(score=favours("Good")), "grouping.n=3", "grouping.idle_s=60", "judge.k=2") as client:
        bodies = [member(i, text) for i, text in enumerate(("Good.", "Bad.", "Worse."))]
        async with asyncio.timeout(5):
            answers = await all_at_once([post(client, b, "/verify") for b in reversed(bodies)])
            again = await post(client, bodies[0], "/verify")
        conflict = await client.post("/verify", json=member(0, "another"))
    assert [answer["reward"] for answer in answers] == [3.0, 3.0, 9.0]
    assert [answer["_ng_rollout_index"] for answer in answers] == [2, 1, 0]
    assert again == answers[2]
    assert conflict.status_code == 409


async def test_a_later_attempt(serve: Serve) -> None:
    async with serve(FakeEngine(), "grouping.n=2", "grouping.idle_s=60", "judge.k=2") as client:
        old = asyncio.create_task(client.post("/verify", json=member(0, "A")))
        while not (await counters(client))["grm_groups_open"]:
            await asyncio.sleep(0.001)
        new = await all_at_once([post(client, member(i, f"B{i}", attempt=1), "/verify") for i in range(2)])
        assert (await old).status_code == 503
        assert (await client.post("/verify", json=member(0, "A"))).status_code == 409
    assert [answer["grm_group_size"] for answer in new] == [2, 2]


@pytest.mark.parametrize(
    "body",
    [
        member(0, "A") | {"_ng_rollout_index": None},
        member(-1, "A"),
        member(2, "A"),
        member(0, "A") | {"_ng_group_attempt": -1},
        member(0, "A") | {"_ng_group_attempt": True},
        member(0, "A") | {"_ng_rollout_index": "0"},
        {"response": response("A")},
        rollout("A") | {"response": {}},
    ],
)
async def test_invalid_coordinates(serve: Serve, body: Any) -> None:
    async with serve(FakeEngine(), "grouping.n=2") as client:
        assert (await client.post("/verify", json=body)).status_code in (400, 422)


async def test_a_rollout_that_cannot_be_judged_is_masked(serve: Serve) -> None:
    engine = FakeEngine()
    async with serve(engine, *FAST) as client:
        engine.dead = EngineDead("the engine's process has died")
        body = rollout("A", instance_config={"x": 1})
        answer = await post(client, body, "/verify")
        means = await post(client, {"verify_responses": [answer]}, "/aggregate_metrics")
    assert answer["response"] == body["response"]
    assert (answer["reward"], answer["mask_sample"]) == (0.0, True)
    assert (answer["_ng_failure_class"], answer["failure_kind"]) == ("judge_failed", "judge_failed")
    assert "died" in answer["failure_reason"]
    assert answer["instance_config"] == {"x": 1, "mask_sample": True}
    assert means["agent_metrics"] == {}


async def test_the_other_routes_of_a_resources_server(serve: Serve) -> None:
    rows = [{"_ng_task_index": 0, "reward": 2.0}, {"_ng_task_index": 0, "reward": 4.0}, {"reward": 6.0}]
    async with serve(FakeEngine()) as client:
        assert await post(client, {}, "/seed_session") == {}
        assert (await client.get("/reverify_mode")).json() == "unsupported"
        means = await post(client, {"verify_responses": rows}, "/aggregate_metrics")
        nothing = await post(client, {"verify_responses": []}, "/aggregate_metrics")
    assert means["group_level_metrics"][0] == {"_ng_task_index": 0, "mean/reward": 3.0}
    assert means["key_metrics"] == {"mean/reward": 4.0}
    assert nothing == {"group_level_metrics": [], "agent_metrics": {}, "key_metrics": {}}


async def test_compare(serve: Serve) -> None:
    body = {
        "conversation_history": [{"role": "user", "content": "Why?"}],
        "response_objs": [response(text) for text in ("Bad.", "Good.", "Worse.")],
        "principle": "Be right.",
    }
    engine = FakeEngine(score=favours("Good"))
    async with serve(engine, "judge.k=8") as client:
        answer = await post(client, body, "/compare")
        alone = await post(client, body | {"response_objs": [response("Good.")]}, "/compare")
        none = await post(client, body | {"response_objs": []}, "/compare")
        engine.dead = EngineDead("the engine's process has died")
        dead = await client.post("/compare", json=body)
    assert answer["rewards"] == [3.0, 9.0, 3.0]
    assert [(pair["response_i"], pair["response_j"]) for pair in answer["comparison_results"]] == [
        (0, 1),
        (0, 2),
        (1, 2),
    ]
    first, even, _ = answer["comparison_results"]
    assert first["score_1"] < first["score_2"] <= 5
    assert 5 < first["ranking"] <= 6
    assert even["ranking"] == pytest.approx(3.5, abs=0.3)
    assert all(isinstance(value, float) for value in answer["metrics"].values())
    assert (alone["rewards"], alone["comparison_results"], none["rewards"]) == ([9.0], [], [])
    assert dead.status_code == 503
    assert "Be right." in plain(engine.calls[0][0].segments[0].lead)


async def test_two_responses_by_their_roles(serve: Serve) -> None:
    engine = FakeEngine(score=favours("Good"))
    async with serve(engine, "judge.k=8") as client:
        answer = await post(client, genrm("Good.", "Bad."), "/v1/chat/completions")
        turned = await post(client, genrm("Bad.", "Good."), "/v1/chat/completions")
    content = json.loads(answer["choices"][0]["message"]["content"])
    assert set(content) == {"score_1", "score_2", "ranking"}
    assert 1 <= content["score_2"] < content["score_1"] <= 5
    assert 1 <= content["ranking"] < 2
    assert json.loads(turned["choices"][0]["message"]["content"])["ranking"] > 5
    assert answer["usage"]["total_tokens"] > 0
    assert "Be right." in plain(engine.calls[0][0].segments[0].lead)


async def test_a_reward_as_a_chat_completion(serve: Serve) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    body = {"model": "nvidia/a-reward", "messages": turns}
    engine = FakeEngine(["7}"] * 2)
    async with serve(engine, "judge.k=2", "grouping.idle_s=60") as client:
        async with asyncio.timeout(5):
            answer = await post(client, body, "/v1/chat/completions")
        kept = await client.get(f"/v1/judgements/{answer['id']}")
    [choice] = answer["choices"]
    assert answer["object"] == "chat.completion"
    assert (choice["message"]["role"], choice["message"]["content"]) == ("assistant", "reward:7.0")
    assert [(token["token"], token["logprob"]) for token in choice["logprobs"]["content"]] == [("reward", 7.0)]
    assert kept.status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [{"role": "user", "content": "Why?"}]}, "messages"),
        (genrm("A", "B", stream=True), "stream"),
        (genrm("A", "B", n=2), "n"),
        ({"messages": CHAT, "n": 2}, "n"),
        ({"messages": CHAT, "n": 0}, "n"),
        ({"messages": CHAT, "n": "2"}, "n"),
        ({"messages": []}, "messages"),
    ],
)
async def test_invalid_chats(serve: Serve, body: Any, param: str) -> None:
    async with serve(FakeEngine()) as client:
        answer = await client.post("/v1/chat/completions", json=body)
    assert answer.status_code in (400, 422)
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize("n", [1, None])
async def test_one_choice_may_be_requested(serve: Serve, n: int | None) -> None:
    async with serve(FakeEngine()) as client:
        answer = await client.post("/v1/chat/completions", json={"messages": CHAT, "n": n})
    assert (answer.status_code, len(answer.json()["choices"])) == (200, 1)


async def test_a_chat_that_cannot_be_judged_is_an_error(serve: Serve) -> None:
    engine = FakeEngine()
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    async with serve(engine) as client:
        engine.dead = EngineDead("the engine's process has died")
        answer = await client.post("/v1/chat/completions", json={"messages": turns})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_dead")


async def test_the_official_client_of_openai(serve: Serve) -> None:
    openai = pytest.importorskip("openai")
    async with serve(FakeEngine(["7}"] * 2), "judge.k=2") as client:
        official = openai.AsyncOpenAI(base_url="http://localhost/v1", api_key="none", http_client=client)
        turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
        answer = await official.chat.completions.create(model="judge", messages=turns)
        models = await official.models.list()
    assert answer.choices[0].message.content == "reward:7.0"
    assert answer.choices[0].logprobs.content[0].logprob == 7.0
    assert [model.id for model in models.data] == ["fake"]
