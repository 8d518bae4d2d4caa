"""Long lists judged in blocks, over HTTP with a fake engine."""

import re
from collections import Counter
from typing import Any

import pytest

from grm_server.engine.fake import FakeCall, FakeEngine
from tests.integration.conftest import Serve
from tests.integration.judging import LONG, PAIR, favours, post, scores


async def test_a_long_list_is_judged_in_blocks(serve: Serve) -> None:
    engine = FakeEngine(score=favours("number 7."))
    async with serve(engine) as client:
        answer = await post(client, responses=LONG, k=4, return_samples=True)
    assert (answer["best"], answer["list_size"], answer["k_used"]) == (7, 8, 4)
    assert answer["usage"]["samples"] == 12
    assert answer["votes"] == [4] * 20
    for sample in answer["samples"]:
        assert len(sample["order"]) in (6, 7)
        assert [i for i, score in enumerate(sample["scores"]) if score is not None] == sorted(sample["order"])
    assert len(answer["rewards"]) == len(answer["se"]) == len(answer["p_best"]) == 20
    assert sum(answer["p_best"]) == pytest.approx(1)


async def test_a_lenient_sample_does_not_favour_its_block(serve: Serve) -> None:
    def moody(call: FakeCall) -> str:
        """Response i is worth i / 4 + 2; each sample adds an offset of its own."""
        numbers = re.findall(r"Response number (\d+)\.", call.script.prompt)
        return scores(2 + int(number) // 4 + call.seed % 4 for number in numbers)

    async with serve(FakeEngine(score=moody)) as client:
        answer = await post(client, responses=LONG, k=4)
    assert all(answer["rewards"][i] == pytest.approx(answer["rewards"][0] + i // 4, abs=1e-4) for i in range(20))


async def test_blocks_are_made_to_fit_before_anything_is_generated(serve: Serve) -> None:
    # Short texts with many tokens and long texts with few; the fake's tokens are words.
    responses = ["w " * 250] * 3 + ["long" * 400] * 9
    engine = FakeEngine(max_model_len=1000)
    async with serve(engine) as client:
        for seed in range(6):
            answer = await post(client, responses=responses, k=2, seed=seed, max_critique_tokens=100)
            assert answer["votes"] == [2] * 12


async def test_a_list_that_does_not_fit_the_context_is_judged_in_blocks(serve: Serve) -> None:
    engine = FakeEngine(max_model_len=1000)
    async with serve(engine) as client:
        answer = await post(client, responses=["word " * 200] * 6, k=2, max_critique_tokens=100)
        too_long = await client.post("/v1/rewards", json=PAIR | {"responses": ["word " * 900, "B.", "C."]})
        strict = await client.post(
            "/v1/rewards", json=PAIR | {"responses": ["word " * 200] * 6, "stop": {"rule": "strict"}}
        )
    assert answer["list_size"] < 6
    assert answer["votes"] == [2] * 6
    assert all(len(script.prompt.split()) < 900 for script, *_ in engine.calls)
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (400, "prompt_too_long")
    assert strict.json()["error"]["code"] == "prompt_too_long"


async def test_dropped_responses_keep_their_reward(serve: Serve) -> None:
    def two_close(call: FakeCall) -> str:
        return scores(9 if "0." in text else 8 + call.seed % 2 if "1." in text else 2 for text in call.shown)

    engine = FakeEngine(score=two_close)
    async with serve(engine) as client:
        stop = {"rule": "decided", "gamma": 0.01}
        answer = await post(client, responses=LONG[:8], k=32, stop=stop, return_samples=True)
    shown = Counter(len(sample["order"]) for sample in answer["samples"])
    assert shown[2] > 0
    assert answer["votes"][2] == shown[8] < answer["votes"][0] == len(answer["samples"])
    assert answer["se"][2] > answer["se"][0]
    assert answer["best"] == 0
    assert answer["rewards"][2] < 4


async def test_a_too_long_prompt_is_found_with_few_attempts(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt tokenises a whole context."""
    engine, attempts = FakeEngine(max_model_len=500), 0
    prepare = engine.prepare

    def counted(script: Any) -> Any:
        nonlocal attempts
        attempts += 1
        return prepare(script)

    monkeypatch.setattr(engine, "prepare", counted)
    async with serve(engine) as client:
        for n in (2, 8, 64):
            attempts = 0
            body = PAIR | {"query": "word " * 600, "responses": [f"{i}" for i in range(n)], "k": 2}
            response = await client.post("/v1/rewards", json=body)
            assert response.json()["error"]["code"] == "prompt_too_long"
            assert attempts <= 4
