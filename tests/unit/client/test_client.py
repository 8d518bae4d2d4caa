"""Both clients against a scripted server. Each test runs with the synchronous and the asynchronous one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from grm_client import APIError, ConnectionFailed, GRMClient, Judgement, RewardOptions, Rewards
from tests.unit.client.any_client import AnyClient, Server

Answer = Callable[..., dict[str, Any]]


async def test_a_request_and_its_answer(call: AnyClient, answer: Answer) -> None:
    server = Server(httpx.Response(200, json=answer()))
    options = {"base_url": "http://judge:9/prefix/", "api_key": "secret"}
    query = [{"role": "user", "content": "2 + 2?"}]
    rewards = await call(server, "rewards", query, ["4", "5", "é"], client=options, k=8, temperature=0.5, min_votes=2)
    assert isinstance(rewards, Rewards)
    assert rewards.rewards == (2.125, 5.625, 2.125)
    (sent,) = server.requests
    assert sent.method == "POST"
    assert str(sent.url) == "http://judge:9/prefix/v1/rewards"
    assert sent.headers["authorization"] == "Bearer secret"
    assert json.loads(sent.content) == {
        "query": query,
        "responses": ["4", "5", "é"],
        "k": 8,
        "temperature": 0.5,
        "min_votes": 2,
    }


async def test_every_option_arrives_under_its_own_name(call: AnyClient, answer: Answer) -> None:
    server = Server(httpx.Response(200, json=answer()))
    options: dict[str, Any] = {
        "k": 3,
        "stop": {"rule": "decided", "gamma": 0.1, "target": "ranking"},
        "deadline_s": 2.5,
        "aggregate": "borda",
        "reading": "sampled",
        "list_size": 4,
        "task": "math",
        "temperature": 0.7,
        "seed": 11,
        "max_critique_tokens": 64,
        "format": "plain",
        "thinking": "off",
        "max_thought_tokens": 256,
        "reference": "r",
        "principles": "p",
        "principles_from": "query",
        "min_votes": 1,
        "priority": "high",
        "return_samples": True,
        "hint": 0,
        "k_meta": 2,
        "meta_rm_failure": "vote",
        "thoughts": "drop",
    }
    assert options.keys() == RewardOptions.__annotations__.keys()
    await call(server, "rewards", "q", ["a"], **options)
    assert json.loads(server.requests[0].content) == {"query": "q", "responses": ["a"]} | options


async def test_defaults_of_a_client(call: AnyClient, answer: Answer) -> None:
    server = Server(httpx.Response(200, json=answer()))
    defaults: RewardOptions = {"k": 3, "task": "math"}
    await call(server, "rewards", "q", ["a"], client={"defaults": defaults}, k=5, seed=1)
    await call(server, "rewards", "q", ["a"], client={"defaults": defaults}, task=None)
    await call(
        server, "score_many", [{"query": "q", "responses": ["a"], "k": 9}], client={"defaults": defaults}, seed=2
    )
    sent = [json.loads(request.content) for request in server.requests]
    assert [{name: body[name] for name in body if name not in ("query", "responses")} for body in sent] == [
        {"k": 5, "task": "math", "seed": 1},
        {"k": 3},
        {"k": 9, "task": "math", "seed": 2},
    ]
    assert defaults == {"k": 3, "task": "math"}


async def test_judgements_and_models_are_typed_and_retried(
    call: AnyClient, answer: Answer, sleeps: list[float]
) -> None:
    kept = Server(httpx.ConnectError("refused"), httpx.Response(200, json={"request": {"k": 3}, "answer": answer()}))
    judgement = await call(kept, "judgement", "rw-a/b?c", client={"api_key": "secret"})
    assert isinstance(judgement, Judgement)
    assert (judgement.request, judgement.answer.best) == ({"k": 3}, 1)
    sent = kept.requests[-1]
    assert (sent.method, sent.url.raw_path) == ("GET", b"/v1/judgements/rw-a%2Fb%3Fc")
    assert sent.headers["authorization"] == "Bearer secret"
    assert len(sleeps) == 1

    card = {"id": "judge", "role": "judge", "object": "model", "owned_by": "x", "max_model_len": 8192, "new": 1}
    [model] = await call(Server(httpx.Response(200, json={"data": [card]})), "models")
    assert (model.id, model.role, model.max_model_len) == ("judge", "judge", 8192)
    with pytest.raises(APIError, match=r"data\.0\.id"):
        await call(Server(httpx.Response(200, json={"data": [{}]})), "models")


def test_help_lists_every_option() -> None:
    for text in (GRMClient.rewards.__doc__, RewardOptions.__doc__):
        assert [name for name in RewardOptions.__annotations__ if name not in re.findall(r"\w+", text or "")] == []


def test_rewards_print_on_one_short_line(answer: Answer) -> None:
    rewards = Rewards(**answer(samples=[]))
    assert repr(rewards) == str(rewards)
    assert repr(rewards).startswith("Rewards([2.12±0.31, 5.62±0.42, 2.12±0.30], best=1, k=9/16, stop='decided', id=")
    many = rewards.model_copy(update={"rewards": (5.0,) * 64, "se": (0.1,) * 64})
    assert len(repr(many)) < 200
    assert "… 56 more" in repr(many)


def test_rewards_are_a_table_in_a_notebook(answer: Answer) -> None:
    html = Rewards(**answer(model="<script>", samples=[]))._repr_html_()
    assert "<script>" not in html
    assert html.index("<td>1</td><td>5.62 ± 0.42</td><td>93%</td>") < html.index("<td>0</td><td>2.12 ± 0.31</td>")


async def test_the_default_timeout_exceeds_the_servers_limit(call: AnyClient, answer: Answer) -> None:
    server = Server(httpx.Response(200, json=answer()))
    await call(server, "rewards", "q", ["a"])
    assert server.requests[0].extensions["timeout"]["read"] == 660.0
    await call(server, "rewards", "q", ["a"], client={"timeout_s": 5.0})
    assert server.requests[1].extensions["timeout"]["read"] == 5.0


async def test_a_busy_server_is_retried_with_the_same_request(
    call: AnyClient, answer: Answer, sleeps: list[float]
) -> None:
    server = Server(
        httpx.ConnectError("refused"),
        httpx.Response(429, headers={"retry-after": "3"}),
        httpx.Response(503),
        httpx.Response(200, json=answer()),
    )
    rewards = await call(server, "rewards", "q", ["a", "b", "c"], seed=5)
    assert rewards.best == 1
    assert len({request.content for request in server.requests}) == 1
    assert len(sleeps) == 3
    assert sleeps[0] <= 0.5
    assert 3.0 <= sleeps[1] <= 4.0
    assert sleeps[2] <= 2.0


async def test_retries_end_after_max_retries(call: AnyClient, sleeps: list[float]) -> None:
    server = Server(httpx.Response(503, json={"error": {"code": "engine_dead", "message": "gone"}}))
    with pytest.raises(APIError) as caught:
        await call(server, "rewards", "q", ["a"], client={"max_retries": 2})
    assert caught.value.code == "engine_dead"
    assert len(server.requests) == 3
    assert len(sleeps) == 2


async def test_without_a_server_the_error_says_how_to_start_one(call: AnyClient) -> None:
    server = Server(httpx.ConnectError("refused"))
    with pytest.raises(ConnectionFailed, match=r"no server at http://127.0.0.1:8000; start one with `grm serve`"):
        await call(server, "rewards", "q", ["a"])
    assert len(server.requests) == 5


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500, 502, 504])
async def test_a_refusal_is_not_retried(call: AnyClient, status: int, sleeps: list[float]) -> None:
    server = Server(httpx.Response(status, json={"error": {"code": "no", "message": "no", "retryable": True}}))
    with pytest.raises(APIError) as caught:
        await call(server, "rewards", "q", ["a"])
    assert caught.value.status == status
    assert len(server.requests) == 1
    assert sleeps == []


async def test_ready_is_false_while_starting_and_without_a_server(call: AnyClient) -> None:
    ready, starting = Server(httpx.Response(200)), Server(httpx.Response(503))
    absent = Server(httpx.ConnectError("refused"))
    assert await call(ready, "ready") is True
    assert await call(starting, "ready") is False
    assert await call(absent, "ready") is False
    assert len(starting.requests) == len(absent.requests) == 1
    assert ready.requests[0].url.path == "/health/ready"
