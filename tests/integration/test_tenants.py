"""What one API key fills, uses up or teaches does not touch another key, over HTTP with a fake engine."""

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from grm_server.engine.fake import FakeCall, FakeEngine
from grm_server.grm.priors import DEFAULT_WEIGHT
from grm_server.grm.script import Sample
from tests.integration.conftest import Serve
from tests.integration.judging import PAIR
from tests.integration.keys import A, B, bearer, keys_file
from tests.integration.trainers import FAST, all_at_once, slime

LONG = "x" * 100_000


async def posted(client: httpx.AsyncClient, key: str, path: str, body: Any) -> Any:
    answer = await client.post(path, json=body, headers=bearer(key))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_key_that_fills_the_stores_evicts_only_its_own(serve: Serve, tmp_path: Path) -> None:
    engine = FakeEngine()
    small = ("judgements.max_mib=1", "cache.max_mib=1", "grouping.max_judged=4", *FAST)
    async with serve(engine, keys_file(tmp_path), *small) as client:
        judged = await posted(client, B, "/v1/rewards", PAIR | {"k": 1})
        await posted(client, B, "/reward", slime("P", "x"))
        first, *_ = [
            await posted(client, A, "/v1/rewards", PAIR | {"k": 1, "seed": seed, "reference": LONG})
            for seed in range(16)
        ]
        for number in range(8):
            await posted(client, A, "/reward", slime("P", f"answer {number}"))
        before = engine.started
        again = await posted(client, B, "/v1/rewards", PAIR | {"k": 1})
        await posted(client, B, "/reward", slime("P", "x"))
        assert (again["shared"], engine.started) == ("cache", before)
        stored = [
            await client.get(f"/v1/judgements/{judgement_id}", headers=bearer(B))
            for judgement_id in (judged["id"], first["id"])
        ]
        assert [answer.status_code for answer in stored] == [200, 404]
        await posted(client, A, "/reward", slime("P", "answer 0"))
        assert engine.started == before + 2, "A's own oldest rewards went"


async def test_a_key_that_fills_the_principles_evicts_only_its_own(serve: Serve, tmp_path: Path) -> None:
    def drawn(call: FakeCall) -> Sample | None:
        return Sample({"principles": " " + LONG}, completion_tokens=7) if len(call.script.segments) == 1 else None

    async with serve(FakeEngine(score=drawn), keys_file(tmp_path), "principles.max_mib=1") as client:

        async def origin(key: str, query: str) -> str:
            body = PAIR | {"k": 1, "principles_from": "query", "query": query}
            result: str = (await posted(client, key, "/v1/rewards", body))["principles_from"]
            return result

        assert await origin(B, "Why?") == "query"
        assert {await origin(A, f"Why {number}?") for number in range(30)} == {"query"}
        assert await origin(B, "Why?") == "cache"
        assert await origin(A, "Why 0?") == "query"


async def test_each_key_teaches_its_own_priors(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "priors.json"
    async with serve(FakeEngine(), keys_file(tmp_path), f"stopping.priors={path}") as client:
        for key, count in ((A, 3), (B, 1)):
            for seed in range(count):
                await posted(client, key, "/v1/rewards", PAIR | {"k": 4, "seed": seed})
    weights = {row["tenant"]: row["weight"] for row in json.loads(path.read_text())["priors"]}
    assert weights == {"trainer-a": DEFAULT_WEIGHT + 3, "trainer-b": DEFAULT_WEIGHT + 1}


LIMITED = "requests_per_minute = 60\nsamples_per_minute = 60"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/get_reward?n=1&k=8", {"query": [f"Question {number}" for number in range(100)]}),
        ("/v1/score/evaluation?k=8", {"messages": [f"Question {number}" for number in range(100)]}),
        ("/v1/score?k=8", {"text_1": [f"Q {number}" for number in range(100)], "text_2": ["A"] * 100}),
        (
            "/api/rewardanything_batch?k=8",
            [{"prompt": f"Q {number}", "responses": {"a": "A", "b": "B"}} for number in range(100)],
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_the_limits_hold_for_a_whole_post(serve: Serve, tmp_path: Path, path: str, body: Any) -> None:
    for max_samples, limit in ((512, "limits.max_samples"), (4096, "API key")):
        engine, setting = FakeEngine(), f"limits.max_samples={max_samples}"
        async with serve(engine, keys_file(tmp_path, a=LIMITED), setting) as client:
            answer = await client.post(path, json=body, headers=bearer(A))
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["details"]["samples"]) == (422, "limit_exceeded", 800)
            assert limit in error["message"]
            assert (await client.post("/v1/rewards", json=PAIR, headers=bearer(A))).status_code == 200
        assert engine.started == 16, "the refused POST was neither judged nor charged"


async def test_posts_that_come_together_overdraw_a_quota_by_less_than_a_minute(serve: Serve, tmp_path: Path) -> None:
    engine = FakeEngine()
    async with serve(engine, keys_file(tmp_path, a="samples_per_minute = 60"), *FAST) as client:
        calls = [
            client.post(
                "/get_reward?n=1&k=8", json={"query": [f"{call} {number}" for number in range(7)]}, headers=bearer(A)
            )
            for call in range(20)
        ]
        answers = await all_at_once(calls)
        refused = [answer for answer in answers if answer.status_code == 429]
        assert (len(refused), engine.started) == (18, 2 * 56)
        assert all(0 < int(answer.headers["retry-after"]) <= 60 for answer in refused)


async def test_a_shared_judgement_is_given_back(serve: Serve, tmp_path: Path) -> None:
    engine = FakeEngine()
    async with serve(engine, keys_file(tmp_path, a="samples_per_minute = 16"), "cache.max_mib=1", *FAST) as client:
        for _ in range(10):
            await posted(client, A, "/v1/rewards", PAIR | {"k": 8})
            await posted(client, A, "/get_reward?n=1", {"query": ["Question"]})
        batch = {"principle": "", "prompt": "Q", "responses": {"a": "A", "b": "B"}}
        await posted(client, A, "/api/rewardanything_batch?k=4", [batch, batch])
        assert engine.started == 8 + 2 + 4


async def test_principles_of_a_query_count_as_a_sample(serve: Serve, tmp_path: Path) -> None:
    """Requests with one sample each would otherwise draw twice what the key may."""
    limits = keys_file(tmp_path, a="samples_per_minute = 10")
    engine = FakeEngine()
    async with serve(engine, limits, *FAST, "judge.k=1", "cache.max_mib=1") as client:

        async def sent(path: str, body: Any) -> int:
            return (await client.post(path, json=body, headers=bearer(A))).status_code

        single = PAIR | {"k": 1}
        shared = single | {"principles_from": "query"}
        own = shared | {"principles": "Be right."}
        assert [await sent("/v1/rewards", body) for body in (shared, shared, own)] == [200] * 3
        assert [await sent("/reward?n=1&principles_from=query", slime(f"P{at}", "x")) for at in range(3)] == [200] * 3
        # 2 + 1 + 2 + 2 + 2 of 10; the second request shared the judgement of the first.
        assert [await sent("/v1/rewards", single | {"seed": seed}) for seed in (1, 2)] == [200, 429]
    assert engine.started == 10


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_request_that_is_refused_is_given_back(serve: Serve, tmp_path: Path, accept: str) -> None:
    limits = keys_file(tmp_path, a="samples_per_minute = 8")
    async with serve(FakeEngine(max_model_len=200), limits, "judge.max_critique_tokens=16") as client:
        headers = bearer(A) | {"Accept": accept}
        for body in (PAIR | {"k": 8, "reference": "x" * 30_000}, PAIR | {"k": 8, "reference": "x " * 300}) * 2:
            refused = await client.post("/v1/rewards", json=body, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, "prompt_too_long")


async def test_a_response_that_leaves_its_group_is_given_back(serve: Serve, tmp_path: Path) -> None:
    limits = keys_file(tmp_path, a="samples_per_minute = 8")
    async with serve(FakeEngine(), limits, "grouping.idle_s=60", "judge.k=8") as client:
        waiting = asyncio.ensure_future(client.post("/reward?n=2", json=slime("P", "x"), headers=bearer(A)))
        while not client.service.grouper.open_groups:
            await asyncio.sleep(0.01)
        refused = await client.post("/reward?n=1", json=slime("Q", "y"), headers=bearer(A))
        waiting.cancel()
        await asyncio.wait([waiting])
        served = await client.post("/reward?n=1", json=slime("Q", "y"), headers=bearer(A))
        assert (refused.status_code, served.status_code) == (429, 200)


async def test_without_samples_left_responses_still_join_what_is_paid_for(serve: Serve, tmp_path: Path) -> None:
    limits = keys_file(tmp_path, a="samples_per_minute = 16")
    engine = FakeEngine()
    async with serve(engine, limits, "grouping.idle_s=60", "judge.k=8") as client:

        def sent(prompt: str, responses: str) -> Coroutine[Any, Any, httpx.Response]:
            body = {"query": [prompt + one for one in responses], "prompts": [prompt] * len(responses)}
            return client.post("/get_reward?n=8", json=body, headers=bearer(A))

        waiting = [asyncio.ensure_future(sent(prompt, "a")) for prompt in ("P: ", "Q: ")]
        while client.service.grouper.open_groups < 2:
            await asyncio.sleep(0.01)
        assert (await sent("R: ", "a")).status_code == 429
        assert (await sent("P: ", "bcdefghi")).status_code == 429, "these need another group"
        assert (await sent("P: ", "bcdefgh")).status_code == 200
        assert (await sent("Q: ", "bcdefgh")).status_code == 200
        assert [(await answer).status_code for answer in waiting] == [200, 200]
        assert (await sent("P: ", "h")).status_code == 200, "it is remembered"
    assert engine.started == 16
