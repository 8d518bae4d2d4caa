"""No body holds up the event loop. We count turns of the loop, not seconds."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import httpx
import pytest

from grm_server.api.protocols.batch import ITEMS_PER_TURN
from grm_server.engine.fake import FakeEngine
from grm_server.grm.slices import SLICE_CHARS
from tests.integration.conftest import Serve

CHATML = "<|im_start|>user\nQuestion {}<|im_end|>\n<|im_start|>assistant\nAnswer."
ITEMS = 200

MANY_ITEMS: dict[str, Callable[[int], Any]] = {
    "/get_reward?n=1": lambda n: {"query": [CHATML.format(i) for i in range(n)]},
    "/v1/score/evaluation": lambda n: {"messages": [CHATML.format(i) for i in range(n)]},
    "/score": lambda n: {"text_1": [f"Question {i}" for i in range(n)], "text_2": ["Answer."] * n},
    "/api/rewardanything_batch": lambda n: [
        {"prompt": f"Question {i}", "principle": "", "responses": {"a": "A.", "b": "B."}} for i in range(n)
    ],
}


async def watch(work: Coroutine[Any, Any, httpx.Response], count: Callable[[], int]) -> tuple[httpx.Response, int, int]:
    """The answer, the turns of the loop until it came, and by how much `count` grew in one turn at most."""
    task = asyncio.ensure_future(work)
    turns = largest = 0
    while not task.done():
        before = count()
        await asyncio.sleep(0)
        turns += 1
        largest = max(largest, count() - before)
    return task.result(), turns, largest


def counted(work: Callable[..., Awaitable[Any]], calls: list[int]) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any) -> Any:
        calls.append(1)
        return await work(*args)

    return call


@pytest.mark.parametrize("url", MANY_ITEMS)
async def test_items_start_a_few_at_a_time(serve: Serve, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    async with serve(FakeEngine(), "judge.k=1") as client:
        calls: list[int] = []
        service = client.service
        monkeypatch.setattr(service.grouper, "reward", counted(service.grouper.reward, calls))
        monkeypatch.setattr(service.coalescer, "judge", counted(service.coalescer.judge, calls))
        answer, turns, largest = await watch(client.post(url, json=MANY_ITEMS[url](ITEMS)), lambda: len(calls))
    assert answer.status_code == 200, answer.text
    assert len(calls) == ITEMS
    assert largest <= ITEMS_PER_TURN
    # Once to build the requests, once to start them.
    assert turns >= 2 * ITEMS // ITEMS_PER_TURN


@pytest.mark.parametrize("url", MANY_ITEMS)
async def test_items_of_a_post_are_limited(serve: Serve, url: str) -> None:
    engine = FakeEngine()
    async with serve(engine, "limits.max_items=5", "judge.k=1") as client:
        fits = await client.post(url, json=MANY_ITEMS[url](5))
        calls = len(engine.calls)
        refused = await client.post(url, json=MANY_ITEMS[url](6))
    assert fits.status_code == 200, fits.text
    assert refused.status_code == 422
    error = refused.json()["error"]
    assert error["code"] == "limit_exceeded"
    assert "limits.max_items = 5" in error["message"]
    assert error["details"] == {"limit": 5}
    assert len(engine.calls) == calls


@pytest.mark.parametrize("place", ["query", "response", "reference", "principles"])
@pytest.mark.parametrize("principles_from", ["sample", "query"])
async def test_a_long_text_is_sanitized_in_turns(serve: Serve, place: str, principles_from: str) -> None:
    texts = {"query": "Q", "response": "A.", "reference": "R", "principles": "P"} | {place: "\ufdfa" * 200_000}
    body = {"query": texts["query"], "responses": [texts["response"]], "reference": texts["reference"], "k": 1}
    body |= {"principles": texts["principles"]} if place == "principles" else {"principles_from": principles_from}
    async with serve(FakeEngine()) as client:
        answer, turns, _ = await watch(client.post("/v1/rewards", json=body), lambda: 0)
    assert answer.status_code == 200, answer.text
    assert turns > 200_000 // SLICE_CHARS


LIMIT = 64 * 128
"""Characters for a context of 64 tokens."""


@pytest.mark.parametrize("field", ["query", "reference", "principles"])
async def test_a_text_that_cannot_fit_is_refused_by_its_length(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, field: str
) -> None:
    engine = FakeEngine(max_model_len=64)
    async with serve(engine, "judge.k=1", "judge.max_critique_tokens=16") as client:
        # Whatever looks at a text would fail.
        monkeypatch.setattr("grm_server.grm.sanitize._CONTROL", None)
        body = {"query": "Q", "responses": ["A.", "B."]} | {field: "x" * LIMIT}
        answer = await client.post("/v1/rewards", json=body)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "prompt_too_long"
    assert "limits.max_chars_per_token = 128" in error["message"]
    assert error["details"]["limit"] == 64
    assert error["details"]["needed_tokens"] > 64
    assert engine.calls == []


async def test_a_response_that_cannot_fit_costs_only_itself(serve: Serve) -> None:
    """In one group and in one POST with others."""
    queries = [CHATML.format(0) + "x" * 70_000, CHATML.format(0), CHATML.format(1)]
    async with serve(FakeEngine(max_model_len=512), "judge.k=1", "judge.max_critique_tokens=16") as client:
        answer = await client.post("/get_reward?n=2", json={"query": queries[:2]})
        other = await client.post("/get_reward?n=1", json={"query": queries[::2]})
    assert answer.json()["extra_logs"]["grm_failed"] == [1.0, 0.0]
    assert other.json()["extra_logs"]["grm_failed"] == [1.0, 0.0]
    assert len(answer.json()["rewards"]) == 2


async def test_a_text_at_the_limit_is_judged(serve: Serve) -> None:
    """Tokens of 128 characters exist; here a run of any length is one word."""
    async with serve(FakeEngine(max_model_len=512), "judge.max_critique_tokens=16") as client:
        body = {"query": "Q", "responses": ["x" * (512 * 128 - 1)], "k": 1}
        answer = await client.post("/v1/rewards", json=body)
        body["responses"] = ["x" * (512 * 128)]
        refused = await client.post("/v1/rewards", json=body)
    assert answer.status_code == 200, answer.text
    assert refused.status_code == 400
