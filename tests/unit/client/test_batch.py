"""`score_many` of both clients against a scripted server."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import httpx
import pytest

from grm_client import APIError, AsyncGRMClient, GRMClient, InvalidRequest, Rewards
from tests.unit.conftest import Answer


class Server:
    """Refuses the query "bad" and answers all others. Records the peak number of requests in flight."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.bodies: list[dict[str, Any]] = []
        self.running = self.peak = 0
        self._lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        with self._lock:
            self.bodies.append(body)
            self.running += 1
            self.peak = max(self.peak, self.running)
        threading.Event().wait(0.01)
        with self._lock:
            self.running -= 1
        return self._respond(body)

    async def respond_async(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        self.bodies.append(body)
        self.running += 1
        self.peak = max(self.peak, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        return self._respond(body)

    def _respond(self, body: dict[str, Any]) -> httpx.Response:
        if body["query"] == "bad":
            return httpx.Response(422, json={"error": {"code": "invalid_body", "message": "no"}})
        return httpx.Response(200, json=self.answer(id=body["query"]))


async def score_many(kind: str, server: Server, *args: Any, **kwargs: Any) -> Any:
    if kind == "sync":
        with GRMClient(transport=httpx.MockTransport(server)) as client:
            return client.score_many(*args, **kwargs)
    async with AsyncGRMClient(transport=httpx.MockTransport(server.respond_async)) as other:
        return await other.score_many(*args, **kwargs)


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
async def test_results_are_in_request_order(kind: str, answer: Answer, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(answer)
    requests = [{"query": f"q{i}", "responses": ["a"], "seed": i} for i in range(20)]
    requests[3] = {"query": "bad", "responses": ["a"]}
    results = await score_many(kind, server, iter(requests), concurrency=4, k=2, seed=99)
    assert [result.id for result in results if isinstance(result, Rewards)] == [f"q{i}" for i in range(20) if i != 3]
    assert isinstance(results[3], APIError)
    assert server.peak == 4
    assert {body["k"] for body in server.bodies} == {2}
    # A request's own options take precedence.
    assert sorted(body["seed"] for body in server.bodies) == [*(i for i in range(20) if i != 3), 99]
    assert capsys.readouterr().err.strip() == ""


@both
async def test_progress_draws_a_bar_on_standard_error(
    kind: str, answer: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    await score_many(kind, Server(answer), [{"query": "q", "responses": ["a"]}] * 3, progress=True)
    captured = capsys.readouterr()
    assert "3/3" in captured.err
    assert captured.out == ""


@both
async def test_no_requests_and_no_workers(kind: str, answer: Answer) -> None:
    assert await score_many(kind, Server(answer), []) == []
    with pytest.raises(ValueError, match="at least 1"):
        await score_many(kind, Server(answer), [], concurrency=0)


@both
@pytest.mark.parametrize(
    "invalid",
    [{"query": "q"}, {"query": 3, "responses": ["a"]}, {"query": "q", "responses": "a"}, None, {3: 4}]
    + [{"query": "q", "responses": ["a\udc97"]}, {"query": "q", "responses": [object()]}],
)
async def test_a_malformed_request_takes_its_error_and_the_others_are_answered(
    kind: str, answer: Answer, invalid: Any
) -> None:
    fine = {"query": "q", "responses": ["a"]}
    first, error, last = await score_many(kind, Server(answer), [fine, invalid, fine])
    assert isinstance(first, Rewards)
    assert isinstance(error, InvalidRequest)
    assert isinstance(last, Rewards)
