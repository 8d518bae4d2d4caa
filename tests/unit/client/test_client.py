"""Both clients against a server made of functions. Each test runs for the sync and the async one."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from typing import Any

import httpx
import pytest

from grm_client import APIError, AsyncGRMClient, ConnectionFailed, Event, GRMClient, RewardOptions, Rewards, TimedOut

Answer = Callable[..., dict[str, Any]]
Handler = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answers with the given steps one after the other (the last one for ever) and keeps the requests."""

    def __init__(self, *steps: httpx.Response | httpx.RequestError) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, httpx.RequestError):
            raise step
        return step


class Asked:
    """A client of either kind, asked the same way."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def __call__(
        self, server: Handler, method: str, *args: Any, client: dict[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        transport = httpx.MockTransport(server)
        if self.kind == "sync":
            with GRMClient(transport=transport, **client or {}) as sync_client:
                return getattr(sync_client, method)(*args, **kwargs)
        async with AsyncGRMClient(transport=transport, **client or {}) as async_client:
            return await getattr(async_client, method)(*args, **kwargs)

    async def stream(self, server: Handler, *args: Any, **kwargs: Any) -> AsyncGenerator[Event]:
        transport = httpx.MockTransport(server)
        if self.kind == "sync":
            with GRMClient(transport=transport) as sync_client, closing(sync_client.stream(*args, **kwargs)) as one:
                for event in one:
                    yield event
        else:
            async with AsyncGRMClient(transport=transport) as client, aclosing(client.stream(*args, **kwargs)) as other:
                async for event in other:
                    yield event


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Asked:
    """`await ask(server, method, *args, client={}, **kwargs)` and `ask.stream(server, *args, **kwargs)`."""
    return Asked(request.param)


async def test_a_request_and_its_answer(ask: Asked, answer: Answer) -> None:
    server = Server(httpx.Response(200, json=answer()))
    options = {"base_url": "http://judge:9/prefix/", "api_key": "secret"}
    query = [{"role": "user", "content": "2 + 2?"}]
    rewards = await ask(server, "rewards", query, ["4", "5", "é"], client=options, k=8, temperature=0.5, min_votes=2)
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


async def test_every_option_arrives_under_its_own_name(ask: Asked, answer: Answer) -> None:
    server = Server(httpx.Response(200, json=answer()))
    options = {
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
        "reference": "r",
        "principles": "p",
        "principles_from": "query",
        "min_votes": 1,
        "priority": "high",
        "return_samples": True,
        "hint": 0,
        "k_meta": 2,
        "meta_rm_failure": "vote",
    }
    assert options.keys() == RewardOptions.__annotations__.keys()
    await ask(server, "rewards", "q", ["a"], **options)
    assert json.loads(server.requests[0].content) == {"query": "q", "responses": ["a"]} | options


async def test_a_client_waits_longer_than_a_server_lets_a_request_take(ask: Asked, answer: Answer) -> None:
    server = Server(httpx.Response(200, json=answer()))
    await ask(server, "rewards", "q", ["a"])
    assert server.requests[0].extensions["timeout"]["read"] == 660.0
    await ask(server, "rewards", "q", ["a"], client={"timeout_s": 5.0})
    assert server.requests[1].extensions["timeout"]["read"] == 5.0


async def test_a_busy_server_is_asked_again_with_the_same_request(
    ask: Asked, answer: Answer, sleeps: list[float]
) -> None:
    server = Server(
        httpx.ConnectError("refused"),
        httpx.Response(429, headers={"retry-after": "3"}),
        httpx.Response(503),
        httpx.Response(200, json=answer()),
    )
    rewards = await ask(server, "rewards", "q", ["a", "b", "c"], seed=5)
    assert rewards.best == 1
    assert len({request.content for request in server.requests}) == 1
    assert len(sleeps) == 3
    assert sleeps[0] <= 0.5
    assert 3.0 <= sleeps[1] <= 4.0
    assert sleeps[2] <= 2.0


async def test_attempts_end_after_max_retries(ask: Asked, sleeps: list[float]) -> None:
    server = Server(httpx.Response(503, json={"error": {"code": "engine_dead", "message": "gone"}}))
    with pytest.raises(APIError) as caught:
        await ask(server, "rewards", "q", ["a"], client={"max_retries": 2})
    assert caught.value.code == "engine_dead"
    assert len(server.requests) == 3
    assert len(sleeps) == 2


async def test_no_server_says_how_to_start_one(ask: Asked) -> None:
    server = Server(httpx.ConnectError("refused"))
    with pytest.raises(ConnectionFailed, match=r"no server at http://127.0.0.1:8000; start one with `grm serve`"):
        await ask(server, "rewards", "q", ["a"])
    assert len(server.requests) == 5


@pytest.mark.parametrize("status", [400, 401, 404, 413, 422, 500, 502, 504])
async def test_a_refusal_is_final(ask: Asked, status: int, sleeps: list[float]) -> None:
    server = Server(httpx.Response(status, json={"error": {"code": "no", "message": "no", "retryable": True}}))
    with pytest.raises(APIError) as caught:
        await ask(server, "rewards", "q", ["a"])
    assert caught.value.status == status
    assert len(server.requests) == 1
    assert sleeps == []


class Chunks(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that comes in pieces and ends as it may. Notes that it was closed."""

    def __init__(self, *steps: bytes | httpx.RequestError) -> None:
        self.steps = steps
        self.given = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for step in self.steps:
            self.given += 1
            if isinstance(step, httpx.RequestError):
                raise step
            yield step

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def sse(name: str, data: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


def events(body: Chunks) -> httpx.Response:
    return httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, stream=body)


async def test_events_come_as_they_happen_and_the_last_one_is_the_answer(ask: Asked, answer: Answer) -> None:
    body = Chunks(sse("started", {"k": 9}), b": ping\n\n", sse("wave", {"k_used": 4})[:20])
    body.steps += (sse("wave", {"k_used": 4})[20:] + sse("rewards", answer()),)
    server = Server(events(body))
    taken = [(event, body.given) async for event in ask.stream(server, "q", ["a"], k=9, stop={"rule": "fixed"})]
    assert [(event.name, given) for event, given in taken] == [("started", 1), ("wave", 4), ("rewards", 4)]
    assert Rewards(**taken[-1][0].data).rewards == (2.125, 5.625, 2.125)
    (sent,) = server.requests
    assert (sent.method, sent.url.path, sent.headers["accept"]) == ("POST", "/v1/rewards", "text/event-stream")
    assert json.loads(sent.content) == {"query": "q", "responses": ["a"], "k": 9, "stop": {"rule": "fixed"}}
    assert body.closed


async def test_a_stream_begins_when_a_busy_server_has_time(ask: Asked, answer: Answer, sleeps: list[float]) -> None:
    busy = [httpx.ConnectError("refused"), httpx.Response(503, headers={"retry-after": "2"}, stream=Chunks(b"{}"))]
    server = Server(*busy, events(Chunks(sse("rewards", answer()))))
    assert [event.name async for event in ask.stream(server, "q", ["a"])] == ["rewards"]
    assert len(server.requests) == 3
    assert 2.0 <= sleeps[1] <= 3.0


@pytest.mark.parametrize(
    ("steps", "kind", "code"),
    [
        ([], ConnectionFailed, None),
        ([httpx.ReadError("reset")], ConnectionFailed, None),
        ([httpx.RemoteProtocolError("incomplete chunked read")], ConnectionFailed, None),
        ([httpx.ReadTimeout("")], TimedOut, None),
        ([sse("error", {"error": {"code": "engine_dead", "message": "m"}})], APIError, "engine_dead"),
        ([sse("rewards", [])], APIError, "bad_answer"),
    ],
    ids=str,
)
async def test_a_stream_that_fails_says_so_and_is_not_tried_again(
    ask: Asked, steps: list[Any], kind: type[Exception], code: str | None, sleeps: list[float]
) -> None:
    body = Chunks(sse("started", {}), sse("wave", {}), *steps)
    server = Server(events(body))
    taken: list[str] = []

    async def take() -> None:
        async for event in ask.stream(server, "q", ["a"]):
            taken.append(event.name)

    with pytest.raises(kind) as caught:
        await take()
    assert taken == ["started", "wave"]
    assert getattr(caught.value, "code", None) == code
    assert len(server.requests) == 1
    assert sleeps == []
    assert body.closed


async def test_a_stream_that_breaks_after_its_answer_is_whole(ask: Asked, answer: Answer) -> None:
    body = Chunks(sse("rewards", answer()), httpx.RemoteProtocolError("incomplete chunked read"))
    assert [event.name async for event in ask.stream(Server(events(body)), "q", ["a"])] == ["rewards"]


@pytest.mark.parametrize(
    ("status", "kind", "content", "code"),
    [
        (422, "application/json", b'{"error": {"code": "invalid_body", "message": "no"}}', "invalid_body"),
        (504, "application/json", b'{"error": {"code": "deadline_exceeded", "message": "no"}}', "deadline_exceeded"),
        (502, "text/event-stream", b"<html>", "http_error"),
        (200, "application/json", b'{"rewards": []}', "bad_answer"),
        (200, "text/html", b"<p>log in</p>", "bad_answer"),
    ],
)
async def test_a_stream_that_does_not_begin_is_an_error(
    ask: Asked, status: int, kind: str, content: bytes, code: str
) -> None:
    body = Chunks(content)
    server = Server(httpx.Response(status, headers={"content-type": kind}, stream=body))
    with pytest.raises(APIError) as caught:
        [event async for event in ask.stream(server, "q", ["a"])]
    assert (caught.value.status, caught.value.code) == (status, code)
    assert len(server.requests) == 1
    assert body.closed


async def test_who_leaves_closes_the_stream(ask: Asked) -> None:
    body = Chunks(sse("started", {}), sse("wave", {}), sse("wave", {}))
    async with aclosing(ask.stream(Server(events(body)), "q", ["a"])) as stream:
        async for event in stream:
            assert event.name == "started"
            break
    assert body.closed
    assert body.given == 1


async def test_ready_tells_ready_from_starting_and_absent(ask: Asked) -> None:
    ready, starting = Server(httpx.Response(200)), Server(httpx.Response(503))
    absent = Server(httpx.ConnectError("refused"))
    assert await ask(ready, "ready") is True
    assert await ask(starting, "ready") is False
    assert await ask(absent, "ready") is False
    assert len(starting.requests) == len(absent.requests) == 1
    assert ready.requests[0].url.path == "/health/ready"


def test_an_address_without_scheme_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="http://"):
        GRMClient("localhost:8000")


def test_a_proxy_is_not_asked_for_the_callers_own_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    with GRMClient() as client:
        http = client._http
        assert http._transport_for_url(httpx.URL("http://127.0.0.1:8000/v1/rewards")) is http._transport
        assert http._transport_for_url(httpx.URL("http://judge:8000/v1/rewards")) is not http._transport
