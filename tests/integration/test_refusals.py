"""POST /v1/rewards around a fake engine: requests that are refused before any sample is generated."""

import json
from typing import Any

import pytest

from grm_server.engine.fake import FakeEngine
from tests.integration.conftest import Serve
from tests.integration.judging import THREE, respond


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"responses": []}, "responses"),
        ({"responses": "A."}, "responses"),
        ({"responses": ["A.", 3]}, "responses.1"),
        ({"responses": ["A.", None]}, "responses.1"),
        ({"query": ""}, "query"),
        ({"query": []}, "query"),
        ({"query": 3}, "query"),
        ({"query": {"role": "user", "content": "x"}}, "query"),
        ({"query": [{"role": "teacher", "content": "x"}]}, "query.0.role"),
        ({"query": ["Why?", {"role": "user", "content": "x"}]}, "query.0"),
        ({"messages": [{"role": "user", "content": "x"}]}, "messages"),
        ({"temprature": 1}, "temprature"),
        ({"k": 0}, "k"),
        ({"k": "many"}, "k"),
        ({"k": "8"}, "k"),
        ({"k": 8.0}, "k"),
        ({"k": True}, "k"),
        ({"return_samples": "yes"}, "return_samples"),
        ({"temperature": 0}, "temperature"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**53}, "seed"),
        ({"reference": ""}, "reference"),
        ({"max_critique_tokens": 1}, "max_critique_tokens"),
        ({"responses": ["\ud800"]}, "responses.0"),
    ],
)
async def test_an_error_names_the_wrong_field(serve: Serve, change: dict[str, Any], param: str) -> None:
    engine = FakeEngine()
    async with serve(engine) as client:
        content = json.dumps(THREE | change)
        response = await client.post("/v1/rewards", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["code"], error["param"], error["retryable"]) == ("invalid_body", param, False)
    assert not engine.calls


@pytest.mark.parametrize("content", ["", "{", "[]", '"x"', '{"query": NaN}', "\xff", '{"a":' * 2000])
async def test_malformed_bodies(serve: Serve, content: str) -> None:
    async with serve(FakeEngine()) as client:
        response = await client.post(
            "/v1/rewards", content=content.encode("latin-1"), headers={"Content-Type": "application/json"}
        )
    assert response.status_code == 422
    assert response.json()["error"]["code"] == "invalid_body"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
async def test_no_infinite_temperature(serve: Serve, number: str) -> None:
    content = json.dumps(THREE)[:-1] + f', "temperature": {number}}}'
    async with serve(FakeEngine()) as client:
        response = await client.post("/v1/rewards", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == 422


async def test_the_answer_does_not_repeat_what_was_sent(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        response = await respond(client, k="SECRET-VALUE", responses=[{"SECRET-KEY": 1}])
    assert "SECRET" not in response.text


@pytest.mark.parametrize(
    ("change", "param", "setting"),
    [
        ({"responses": ["A."] * 5}, "responses", "limits.max_responses = 4"),
        ({"k": 9}, "k", "limits.max_k = 8"),
        ({"max_critique_tokens": 301}, "max_critique_tokens", "limits.max_critique_tokens = 300"),
        ({"min_votes": 7}, "min_votes", "k = 6"),
    ],
)
async def test_an_error_names_the_limit(serve: Serve, change: dict[str, Any], param: str, setting: str) -> None:
    limits = ("limits.max_responses=4", "judge.k=8", "limits.max_k=8", "limits.max_critique_tokens=300")
    async with serve(FakeEngine(), *limits) as client:
        response = await respond(client, **change)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (422, "limit_exceeded", param)
    assert setting in error["message"]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_too_large_body(serve: Serve, declared: bool) -> None:
    async def chunks() -> Any:
        for _ in range(8):
            yield b" " * 1024

    async with serve(FakeEngine(), "http.max_body_bytes=4096") as client:
        response = await client.post("/v1/rewards", content=b" " * 8192 if declared else chunks())
        small = await respond(client)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "body_too_large"
    assert "http.max_body_bytes = 4096" in response.json()["error"]["message"]
    assert small.status_code == 200


async def test_a_prompt_that_is_too_long_generates_nothing(serve: Serve) -> None:
    engine = FakeEngine(max_model_len=500)
    async with serve(engine) as client:
        response = await respond(client, responses=["word " * 600, "B."])
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["retryable"]) == (400, "prompt_too_long", False)
    assert error["details"]["limit"] == 500
    assert error["details"]["needed_tokens"] > error["details"]["prompt_tokens"] > 600
    assert not engine.calls
