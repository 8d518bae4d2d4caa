"""Streams of both clients against a server made of functions. Each test runs for the sync and the async one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest

from grm_client import APIError, ConnectionFailed, Rewards, TimedOut
from tests.unit.client.asking import Asked, Server

Answer = Callable[..., dict[str, Any]]


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
    busy: list[httpx.Response | httpx.RequestError] = [
        httpx.ConnectError("refused"),
        httpx.Response(503, headers={"retry-after": "2"}, stream=Chunks(b"{}")),
    ]
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
