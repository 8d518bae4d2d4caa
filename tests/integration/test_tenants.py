"""What one API key fills, uses up or teaches does not touch another key, over HTTP with a fake engine."""

from pathlib import Path
from typing import Any

import httpx

from grm_server.engine.fake import FakeCall, FakeEngine
from grm_server.grm.types import Sample
from tests.integration.conftest import Serve
from tests.integration.judging import PAIR
from tests.integration.keys import A, B, bearer, keys_file
from tests.integration.trainers import FAST, slime

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
