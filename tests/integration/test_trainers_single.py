"""OpenRLHF, slime and LLaMA-Factory: captured request bodies, and responses as these trainers read them."""

import asyncio
import math
from typing import Any

import pytest

from grm_server.engine.fake import FakeEngine
from grm_server.errors import EngineDead
from tests.integration.conftest import Serve
from tests.integration.counting import counters
from tests.integration.judging import favours
from tests.integration.trainers import FAST, all_at_once, post

CAPTURED = {"query": ["<|user|>hi<|assistant|> r1<eos>"], "prompts": ["<|user|>hi<|assistant|>"], "labels": ["42"]}
LOGS = {"grm_raw", "grm_se", "grm_k_used", "grm_group_size", "grm_failed", "grm_unknown_template"}


def chatml(prompt: str, response: str) -> dict[str, Any]:
    templated = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    return {"query": [f"{templated}{response}<|im_end|>"], "prompts": [templated], "labels": [""]}


def assert_rewards(answer: Any, count: int) -> None:
    """The trainer builds tensors from them, so all values must be finite floats."""
    assert set(answer) == {"rewards", "scores", "extra_logs"}
    assert set(answer["extra_logs"]) == LOGS
    for values in (answer["rewards"], answer["scores"], *answer["extra_logs"].values()):
        assert isinstance(values, list)
        assert len(values) == count
        assert all(type(value) is float and math.isfinite(value) for value in values)


@pytest.mark.parametrize("url", ["/get_reward", "/get_reward?n=1", "/get_reward?token=x&n=1&anything"])
async def test_what_openrlhf_posts(serve: Serve, url: str) -> None:
    engine = FakeEngine(["7}"] * 2)
    async with serve(engine, *FAST) as client:
        answer = await post(client, CAPTURED, url)
    assert_rewards(answer, 1)
    assert answer["rewards"] == [7.0]
    assert answer["scores"] == [pytest.approx(6 / 9)]
    prompt = engine.calls[0][0].prompt
    assert "\nhi\n" in prompt
    assert "[The Begin of Response 1]\n r1\n[The End of Response 1]" in prompt
    assert "42" in prompt
    assert "<|user|>" not in prompt
    assert "<eos>" not in prompt


async def test_empty_lists(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        assert_rewards(await post(client, {"query": [], "prompts": [], "labels": []}, "/get_reward"), 0)


async def test_the_responses_to_a_prompt_are_judged_together(serve: Serve) -> None:
    engine = FakeEngine(score=favours("Good"))
    async with serve(engine, "grouping.idle_s=60", "judge.k=2") as client:
        bodies = [chatml("Why?", text) for text in ("Good.", "Bad.", "Worse.")]
        url = "/get_reward?n=3&reward_scale=centered"
        answers = await all_at_once([post(client, body, url) for body in bodies])
    assert [answer["rewards"] for answer in answers] == [[4.0], [-2.0], [-2.0]]
    assert [answer["extra_logs"]["grm_raw"] for answer in answers] == [[9.0], [3.0], [3.0]]
    assert all(answer["extra_logs"]["grm_group_size"] == [3.0] for answer in answers)


async def test_a_whole_batch_in_one_call(serve: Serve) -> None:
    """As OpenRLHF did before 0.9.1."""
    one, other = chatml("Why?", "A."), chatml("How?", "B.")
    body = {name: [*one[name], *other[name], *one[name]] for name in one}
    async with serve(FakeEngine(), *FAST) as client:
        answer = await post(client, body, "/get_reward")
    assert_rewards(answer, 3)
    assert answer["rewards"][0] == answer["rewards"][2]
    assert answer["extra_logs"]["grm_group_size"] == [2.0, 1.0, 2.0]


async def test_without_prompts_the_response_is_the_last_turn(serve: Serve) -> None:
    engine = FakeEngine()
    async with serve(engine, *FAST) as client:
        assert_rewards(await post(client, {"query": chatml("Why?", "Because.")["query"]}, "/get_reward"), 1)
    assert "[The Begin of Response 1]\nBecause.\n" in engine.calls[0][0].prompt


@pytest.mark.parametrize("label", [None, "", " ", 42, {"answer": 42}])
async def test_labels(serve: Serve, label: Any) -> None:
    engine = FakeEngine()
    async with serve(engine, *FAST) as client:
        assert_rewards(await post(client, CAPTURED | {"labels": [label]}, "/get_reward"), 1)
        assert_rewards(await post(client, CAPTURED | {"labels": [label]}, "/get_reward?label=ignore"), 1)
    shown, ignored = engine.calls[0][0].prompt, engine.calls[-1][0].prompt
    assert ("42" in shown, "42" in ignored) == (label in (42, {"answer": 42}), False)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"query": "x"}, 422),
        ({"query": ["x"], "prompts": ["x", "y"]}, 400),
        ({"query": ["x"], "labels": [1, 2]}, 400),
    ],
)
async def test_malformed_openrlhf_bodies_are_refused(serve: Serve, body: Any, status: int) -> None:
    async with serve(FakeEngine()) as client:
        answer = await client.post("/get_reward", json=body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"code", "message", "param", "retryable", "details"}


@pytest.mark.parametrize("query", ["n=0", "k=x", "reward_scale=best", "k=1000", "aggregate=vote"])
async def test_invalid_options(serve: Serve, query: str) -> None:
    engine = FakeEngine()
    async with serve(engine) as client:
        answer = await client.post(f"/get_reward?{query}", json=CAPTURED)
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, query.partition("=")[0])
    assert not engine.started


@pytest.mark.parametrize(("scale", "neutral"), [("raw", 5.5), ("unit", 0.5), ("centered", 0.0)])
async def test_a_response_that_cannot_be_judged_gets_a_neutral_reward(
    serve: Serve, scale: str, neutral: float, caplog: pytest.LogCaptureFixture
) -> None:
    engine = FakeEngine()
    async with serve(engine, *FAST, f"trainers.openrlhf.reward_scale={scale}") as client:
        engine.dead = EngineDead("the engine's process has died")
        answer = await post(client, CAPTURED, "/get_reward")
        seen = await counters(client)
    assert_rewards(answer, 1)
    assert (answer["rewards"], answer["scores"]) == ([neutral], [0.5])
    assert answer["extra_logs"]["grm_failed"] == [1.0]
    assert seen['grm_failed_rewards_total{answer="neutral",trainer="openrlhf"}'] == 1
    assert "engine_dead" in caplog.text
    assert "r1" not in caplog.text


async def test_an_engine_that_dies_while_a_group_is_judged(serve: Serve) -> None:
    engine = FakeEngine(delay_s=0.05)
    async with serve(engine, *FAST) as client:
        bodies = [chatml("Why?", text) for text in "ABC"]
        calls = asyncio.ensure_future(all_at_once([post(client, body, "/get_reward?n=3") for body in bodies]))
        while not engine.started:
            await asyncio.sleep(0.001)
        engine.dead = EngineDead("the engine's process has died")
        answers = await calls
        engine.dead = None
        again = await post(client, bodies[0], "/get_reward?n=1")
    assert [answer["rewards"] for answer in answers] == [[5.5]] * 3
    assert again["extra_logs"]["grm_failed"] == [0.0]


async def test_an_unexpected_error_gives_a_neutral_reward_too(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the prompt was SECRET")

    engine = FakeEngine()
    monkeypatch.setattr(engine, "prepare", broken)
    async with serve(engine, *FAST) as client:
        answer = await post(client, CAPTURED, "/get_reward")
    assert answer["rewards"] == [5.5]


async def test_a_prompt_that_is_too_long_is_neutral(serve: Serve) -> None:
    async with serve(FakeEngine(max_model_len=500), *FAST) as client:
        answer = await post(client, chatml("word " * 600, "A."), "/get_reward")
    assert answer["rewards"] == [5.5]


async def test_a_too_long_response_does_not_cost_the_others_their_rewards(serve: Serve) -> None:
    runaway = "word " * 3000
    async with serve(
        FakeEngine(score=favours("Good"), max_model_len=2500), "grouping.idle_s=60", "judge.k=2"
    ) as client:
        bodies = [chatml("Why?", text) for text in ("Good.", runaway, "Bad.", runaway + "!")]
        answers = await all_at_once([post(client, body, "/get_reward?n=4") for body in bodies])
        seen = await counters(client)
    good, cut, bad, longer = [answer["rewards"][0] for answer in answers]
    assert good > bad
    assert cut == longer == 5.5
    assert [answer["extra_logs"]["grm_failed"] for answer in answers] == [[0.0], [1.0], [0.0], [1.0]]
    assert seen['grm_failed_rewards_total{answer="neutral",trainer="openrlhf"}'] == 2


async def test_failure_error_returns_the_error(serve: Serve) -> None:
    engine = FakeEngine()
    async with serve(engine, *FAST, "trainers.openrlhf.failure=error") as client:
        engine.dead = EngineDead("the engine's process has died")
        answer = await client.post("/get_reward", json=CAPTURED)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_dead")


async def test_a_group_of_one_cannot_be_centered(serve: Serve) -> None:
    async with serve(FakeEngine(), *FAST) as client:
        answer = await post(client, CAPTURED, "/get_reward?reward_scale=centered")
        seen = await counters(client)
    assert answer["rewards"] == [0.0]
    assert seen['grm_uncentered_rewards_total{trainer="openrlhf"}'] == 1


SLIME = [
    {"prompt": [{"role": "user", "content": "hi"}], "response": "r0", "label": None},
    {"prompt": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", "response": "r0", "label": "42"},
]


@pytest.mark.parametrize("body", SLIME)
async def test_what_slime_posts(serve: Serve, body: Any) -> None:
    engine = FakeEngine(["7}"] * 2)
    async with serve(engine, *FAST) as client:
        assert await post(client, body, "/reward") == 7.0
        answer = await post(client, body, "/reward?shape=object")
        kept = await client.get(f"/v1/judgements/{answer['judgement']}")
    assert set(answer) == {"reward", "score", "judgement", "group_size", "se", "k_used", "unknown_template"}
    assert (answer["reward"], answer["score"], answer["k_used"]) == (7.0, pytest.approx(6 / 9), 2)
    assert kept.json()["answer"]["samples"][0]["critique"]
    assert "\nhi\n" in engine.calls[0][0].prompt


@pytest.mark.parametrize(("failure", "number"), [("neutral", 5.5), ("none", None)])
async def test_what_slime_gets_when_judging_fails(serve: Serve, failure: str, number: float | None) -> None:
    async with serve(FakeEngine(["no"] * 4), *FAST, f"trainers.slime.failure={failure}") as client:
        bare = await post(client, SLIME[0], "/reward")
        answer = await post(client, SLIME[0], "/reward?shape=object")
    assert bare == number
    assert (answer["reward"], answer["judgement"]) == (number, None)


@pytest.mark.parametrize("body", [{}, {"response": "r"}, {"prompt": "p"}, "p"])
async def test_malformed_slime_bodies_are_refused(serve: Serve, body: Any) -> None:
    async with serve(FakeEngine()) as client:
        assert (await client.post("/reward", json=body)).status_code == 422


async def test_what_llama_factory_posts(serve: Serve) -> None:
    body = {"model": "model", "messages": ["<s>q1 r1</s>", "<s>q2 r2</s>"]}
    engine = FakeEngine()
    async with serve(engine, "judge.k=2", "grouping.idle_s=60") as client:
        async with asyncio.timeout(5):
            answer = await post(client, body, "/v1/score/evaluation")
    assert set(answer) == {"id", "object", "model", "scores"}
    assert answer["object"] == "score.evaluation"
    assert len(answer["scores"]) == 2
    # Prompt and response cannot be separated, so each text is judged alone.
    assert len(engine.calls) == 2
    assert all("Response 2" not in script.prompt for script, _, _ in engine.calls)


async def test_templated_texts_with_padding(serve: Serve) -> None:
    text = "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
    text += "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>" + "<|end_of_text|>" * 9
    engine = FakeEngine(score=favours("Good"))
    async with serve(engine, "judge.k=2", "grouping.idle_s=60") as client:
        body = {"model": "model", "messages": [text.format("Good."), text.format("Bad.")]}
        answer = await post(client, body, "/v1/score/evaluation?reward_scale=unit")
    # Both answer one prompt in one call, so they are judged together.
    assert answer["scores"] == [pytest.approx(8 / 9), pytest.approx(2 / 9)]
    assert "]\nGood.\n[The End" in engine.calls[0][0].prompt


async def test_llama_factory_always_gets_scores(serve: Serve) -> None:
    engine = FakeEngine()
    async with serve(engine) as client:
        engine.dead = EngineDead("the engine's process has died")
        answer = await post(client, {"model": "model", "messages": ["a", "b"]}, "/v1/score/evaluation")
    assert answer["scores"] == [5.5, 5.5]
