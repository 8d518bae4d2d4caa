"""No body holds up the event loop. We count turns of the loop, not seconds."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import httpx
import pytest

from grm_server.api.protocols.batch import ITEMS_PER_TURN
from grm_server.engine.fake import FakeEngine
from grm_server.grm.lookalikes import fold
from grm_server.grm.slices import SLICE_CHARS
from grm_server.meta_rm.fake import FakeMetaRM
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
async def test_a_long_text_is_sanitized_in_turns(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, place: str, principles_from: str
) -> None:
    texts = {"query": "Q", "response": "A.", "reference": "R", "principles": "P"} | {place: "\ufdfa" * 200_000}
    body = {"query": texts["query"], "responses": [texts["response"]], "reference": texts["reference"], "k": 1}
    body |= {"principles": texts["principles"]} if place == "principles" else {"principles_from": principles_from}
    async with serve(FakeEngine()) as client:
        folded = count_folded(monkeypatch)
        answer, _, largest = await watch(client.post("/v1/rewards", json=body), lambda: sum(folded))
    assert answer.status_code == 200, answer.text
    assert sum(folded) >= 200_000
    assert largest <= 2 * SLICE_CHARS


async def test_the_texts_of_many_items_are_sanitized_one_after_the_other(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is short enough for one turn. Forty together are not."""
    body = {"query": [CHATML.format(i) + "\u0416" * 6000 for i in range(40)]}
    async with serve(FakeEngine(), "judge.k=1") as client:
        folded = count_folded(monkeypatch)
        answer, _, largest = await watch(client.post("/get_reward?n=1", json=body), lambda: sum(folded))
    assert answer.status_code == 200, answer.text
    assert sum(folded) >= 240_000
    assert largest <= 3 * SLICE_CHARS


def count_folded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The characters of each piece of a text that is folded from now on, which is the costliest step."""
    pieces = list[int]()

    def counting(text: str) -> str:
        pieces.append(len(text))
        return fold(text)

    monkeypatch.setattr("grm_server.grm.sanitize.fold", counting)
    return pieces


HOSTILE: dict[str, tuple[str, Any]] = {
    "ligatures": ("/v1/rewards", {"query": "Q", "responses": ["\ufdfa" * 900_000]}),
    "distinct characters": ("/v1/rewards", {"query": "Q", "responses": ["".join(map(chr, range(0xE000, 0x5E000)))]}),
    "singles": ("/get_reward?n=1&k=1", {"query": [CHATML.format(i) + "\u0416" * 4000 for i in range(200)]}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_probes_are_answered_while_a_hostile_body_is_handled(url: str, name: str) -> None:
    path, body = HOSTILE[name]
    content = json.dumps(body, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json"}
    with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=url, timeout=60) as client:
        client.get("/health/live")
        hostile = pool.submit(httpx.post, url + path, content=content, headers=headers, timeout=60)
        answered_s = [time.monotonic()]
        while not hostile.done():
            assert client.get("/health/live").status_code == 200
            answered_s.append(time.monotonic())
    assert hostile.result().status_code == 200, hostile.result().text
    # A body that is handled in one go holds up one probe for nearly all of its time. No absolute times: others may use
    # this machine.
    longest_s = max(after - before for before, after in pairwise(answered_s))
    assert longest_s < (answered_s[-1] - answered_s[0]) / 3


LONG, SHORT = "word " * 4000, "word " * 40


def threads_of(work: Callable[[Any], Any], threads: list[bool]) -> Callable[[Any], Any]:
    """`work`, which notes whether it runs in the event loop's thread."""

    def call(*args: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return work(*args)

    return call


@pytest.mark.parametrize("principles_from", ["sample", "query"])
async def test_long_prompts_are_tokenized_in_a_thread(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, principles_from: str
) -> None:
    """Megabytes that fit the context take a tokenizer seconds."""
    engine, in_loop = FakeEngine(), list[bool]()
    monkeypatch.setattr(engine, "prepare", threads_of(engine.prepare, in_loop))
    body = {"query": LONG, "responses": ["A.", "B."], "k": 2, "principles_from": principles_from}
    async with serve(engine) as client:
        answer = await client.post("/v1/rewards", json=body)
        assert answer.status_code == 200, answer.text
        assert in_loop
        assert not any(in_loop)
        in_loop.clear()
        await client.post("/v1/rewards", json=body | {"query": SHORT})
    # A thread would only add a delay.
    assert all(in_loop)


async def test_the_meta_rms_long_prompts_are_tokenized_in_a_thread(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta_rm, in_loop = FakeMetaRM(), list[bool]()
    monkeypatch.setattr(meta_rm, "prepare", threads_of(meta_rm.prepare, in_loop))
    async with serve(FakeEngine(), meta_rm=meta_rm) as client:
        body = {"query": LONG, "responses": ["A.", "B."], "k": 2, "aggregate": "meta_hinge"}
        answer = await client.post("/v1/rewards", json=body)
    assert answer.status_code == 200, answer.text
    assert in_loop
    assert not any(in_loop)


async def test_many_short_items_are_read_in_a_thread(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """All patterns of chat templates search each of them."""
    in_loop = list[bool]()
    # The package gives this name to the router.
    module = sys.modules["grm_server.api.protocols.openrlhf"]
    monkeypatch.setattr(module, "_single", threads_of(module._single, in_loop))
    async with serve(FakeEngine(), "judge.k=1", "limits.max_samples=1000") as client:
        answer = await client.post("/get_reward?n=1", json={"query": ["A."] * 600})
    assert answer.status_code == 200, answer.text
    assert len(in_loop) == 600
    assert not any(in_loop)


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
