"""`GET /v1/judgements/{id}`: why a reward came out as it did, and the request that repeats it."""

from typing import Any

import pytest

from grm_server.engine.fake import FakeEngine
from tests.integration.conftest import Serve


async def test_a_judgement_that_nobody_knows(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        answer = await client.get("/v1/judgements/rw-0")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "judgement_not_kept")


async def test_a_judgement_of_a_grouped_call(serve: Serve) -> None:
    body = {"query": "Why?", "responses": ["A.", "B."], "k": 4, "seed": 5, "task": "t", "reference": "R."}
    async with serve(FakeEngine()) as client:
        answer = (await client.post("/v1/rewards", json=body)).json()
        kept = (await client.get(f"/v1/judgements/{answer['id']}")).json()
        again = (await client.post("/v1/rewards", json=kept["request"])).json()
    assert kept["answer"] | {"samples": None, "timing": answer["timing"]} == answer
    assert len(kept["answer"]["samples"]) == 4
    assert kept["answer"]["samples"][0]["critique"]
    assert kept["request"]["responses"] == ["A.", "B."]
    assert (again["rewards"], again["seed"]) == (answer["rewards"], 5)


@pytest.mark.parametrize(
    "options",
    [
        {"stop": {"rule": "decided", "gamma": 0.1, "target": "ranking"}},
        {"stop": {"rule": "strict", "delta": 0.1}},
        {"stop": {"rule": "precision", "se": 0.2}},
        {"aggregate": "vote", "principles": "P.", "hint": 1, "min_votes": 2, "list_size": 2, "temperature": 0.9},
        {"query": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}], "reading": "expected"},
    ],
)
async def test_the_request_of_a_judgement_says_all(serve: Serve, options: dict[str, Any]) -> None:
    body = {"query": "Why?", "responses": ["A.", "B.", "C."], "k": 4, "seed": 5} | options
    async with serve(FakeEngine()) as client:
        answer = (await client.post("/v1/rewards", json=body)).json()
        request = (await client.get(f"/v1/judgements/{answer['id']}")).json()["request"]
    said = {name: value for name, value in request.items() if name in body and name != "query"}
    assert said == {name: value for name, value in body.items() if name != "query"}
