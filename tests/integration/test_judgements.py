"""`GET /v1/judgements/{id}`: a judgement with its samples, and the request that repeats it."""

from typing import Any

import pytest

from grm_server.engine.fake import FakeEngine
from tests.integration.conftest import Serve


async def test_an_unknown_judgement(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        answer = await client.get("/v1/judgements/rw-0")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "judgement_not_kept")
    assert "unknown or expired judgement id" in answer.json()["error"]["message"]


async def test_a_judgement_can_be_repeated(serve: Serve) -> None:
    body = {"query": "Why?", "responses": ["A.", "B."], "k": 4, "seed": 5, "task": "t", "reference": "R."}
    async with serve(FakeEngine()) as client:
        answer = (await client.post("/v1/rewards", json=body)).json()
        stored = (await client.get(f"/v1/judgements/{answer['id']}")).json()
        again = (await client.post("/v1/rewards", json=stored["request"])).json()
    assert stored["answer"] | {"samples": None, "timing": answer["timing"]} == answer
    assert len(stored["answer"]["samples"]) == 4
    assert stored["answer"]["samples"][0]["critique"]
    assert stored["request"]["responses"] == ["A.", "B."]
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
async def test_the_request_of_a_judgement_is_complete(serve: Serve, options: dict[str, Any]) -> None:
    body = {"query": "Why?", "responses": ["A.", "B.", "C."], "k": 4, "seed": 5} | options
    async with serve(FakeEngine()) as client:
        answer = (await client.post("/v1/rewards", json=body)).json()
        request = (await client.get(f"/v1/judgements/{answer['id']}")).json()["request"]
    echoed = {name: value for name, value in request.items() if name in body and name != "query"}
    assert echoed == {name: value for name, value in body.items() if name != "query"}
