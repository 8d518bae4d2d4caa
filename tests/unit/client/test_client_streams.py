"""Streams of both clients against a scripted server. Each test runs with both clients."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from grm_client import APIError, ConnectionFailed, Rewards, TimedOut
from tests.unit.client.any_client import AnyClient, Server

Answer = Callable[..., dict[str, Any]]


class Chunks(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in chunks, which may end with an error. Records whether it was closed."""

    def __init__(self, *steps: bytes | httpx.RequestError) -> None:
        self.steps = steps
        self.sent_chunks = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for step in self.steps:
            self.sent_chunks += 1
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


async def test_events_arrive_as_they_happen_and_end_with_the_rewards(call: AnyClient, answer: Answer) -> None:
    body = Chunks(sse("started", {"k": 9}), b": ping\n\n", sse("wave", {"k_used": 4})[:20])
    body.steps += (sse("wave", {"k_used": 4})[20:] + sse("rewards", answer()),)
    server = Server(events(body))
    received = [
        (event, body.sent_chunks) async for event in call.stream(server, "q", ["a"], k=9, stop={"rule": "fixed"})
    ]
    assert [(event.name, sent) for event, sent in received] == [("started", 1), ("wave", 4), ("rewards", 4)]
    assert Rewards(**received[-1][0].data).rewards == (2.125, 5.625, 2.125)
    (sent,) = server.requests
    assert (sent.method, sent.url.path, sent.headers["accept"]) == ("POST", "/v1/rewards", "text/event-stream")
    assert json.loads(sent.content) == {"query": "q", "responses": ["a"], "k": 9, "stop": {"rule": "fixed"}}
    assert body.closed


async def test_a_busy_server_is_retried_until_the_stream_starts(
    call: AnyClient, answer: Answer, sleeps: list[float]
) -> None:
    busy: list[httpx.Response | httpx.RequestError] = [
        httpx.ConnectError("refused"),
        httpx.Response(503, headers={"retry-after": "2"}, stream=Chunks(b"{}")),
    ]
    server = Server(*busy, events(Chunks(sse("rewards", answer()))))
    assert [event.name async for event in call.stream(server, "q", ["a"])] == ["rewards"]
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
async def test_a_stream_that_fails_raises_and_is_not_retried(
    call: AnyClient, steps: list[Any], kind: type[Exception], code: str | None, sleeps: list[float]
) -> None:
    body = Chunks(sse("started", {}), sse("wave", {}), *steps)
    server = Server(events(body))
    received: list[str] = []

    async def receive() -> None:
        async for event in call.stream(server, "q", ["a"]):
            received.append(event.name)

    with pytest.raises(kind) as caught:
        await receive()
    assert received == ["started", "wave"]
    assert getattr(caught.value, "code", None) == code
    assert len(server.requests) == 1
    assert sleeps == []
    assert body.closed


async def test_a_stream_that_breaks_after_its_rewards_is_complete(call: AnyClient, answer: Answer) -> None:
    body = Chunks(sse("rewards", answer()), httpx.RemoteProtocolError("incomplete chunked read"))
    assert [event.name async for event in call.stream(Server(events(body)), "q", ["a"])] == ["rewards"]


@pytest.mark.parametrize(
    ("status", "kind", "content", "code"),
    [
        (422, "application/json", b'{"error": {"code": "invalid_body", "message": "no"}}', "invalid_body"),
        (504, "application/json", b'{"error": {"code": "deadline_exceeded", "message": "no"}}', "deadline_exceeded"),
        (500, "text/event-stream", b"<html>", "http_error"),
        (200, "application/json", b'{"rewards": []}', "bad_answer"),
        (200, "text/html", b"<p>log in</p>", "bad_answer"),
    ],
)
async def test_an_answer_that_is_not_a_stream_raises(
    call: AnyClient, status: int, kind: str, content: bytes, code: str
) -> None:
    body = Chunks(content)
    server = Server(httpx.Response(status, headers={"content-type": kind}, stream=body))
    with pytest.raises(APIError) as caught:
        [event async for event in call.stream(server, "q", ["a"])]
    assert (caught.value.status, caught.value.code) == (status, code)
    assert len(server.requests) == 1
    assert body.closed


async def test_leaving_the_loop_closes_the_stream(call: AnyClient) -> None:
    body = Chunks(sse("started", {}), sse("wave", {}), sse("wave", {}))
    async with aclosing(call.stream(Server(events(body)), "q", ["a"])) as stream:
        async for event in stream:
            assert event.name == "started"
            break
    assert body.closed
    assert body.sent_chunks == 1
