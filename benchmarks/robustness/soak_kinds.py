"""The kinds of requests that `benchmarks.robustness.soak` sends, and the allowed outcomes of each."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.lib.data import Item

BUSY = (429, 503)
"""Statuses of a refusal, which is allowed at any time."""
HUGE_BODY = 5 * 2**20


@dataclass(frozen=True, slots=True)
class RequestKind:
    name: str
    weight: int
    run: Callable[[Lane], Awaitable[object]]
    """Sends the request and returns its outcome: an HTTP status, or a word."""
    allowed: tuple[object, ...] = (200,)


class Lane:
    """One of the concurrent clients, with its own random generator."""

    def __init__(self, client: httpx.AsyncClient, items: Sequence[Item], rng: random.Random, tokens: int) -> None:
        self.client = client
        self.rng = rng
        self._items = items
        self._tokens = tokens
        self.judgement = "rw-none"
        """Id of the last judgement that this lane received."""

    async def send(self, kind: RequestKind) -> str:
        """Send one request; its outcome, prefixed with UNEXPECTED if that outcome is not allowed."""
        try:
            end = await kind.run(self)
        except httpx.HTTPError as error:
            end = type(error).__name__
        return str(end) if end in kind.allowed or end in BUSY else f"UNEXPECTED {end}"

    def body(self, **options: Any) -> dict[str, Any]:
        """A unique request body, so it is not coalesced with another."""
        item = self.rng.choice(self._items)
        defaults = {
            "k": self.rng.choice((1, 2, 4)),
            "seed": self.rng.randrange(2**50),
            "max_critique_tokens": self._tokens,
        }
        return {"query": item.query, "responses": list(item.responses), **defaults, **options}

    async def post(self, body: Any, path: str = "/v1/rewards") -> int:
        response = await self.client.post(path, json=body)
        if response.status_code == 200 and path == "/v1/rewards":
            self.judgement = response.json()["id"]
        return response.status_code


async def plain(lane: Lane) -> int:
    return await lane.post(lane.body())


async def decided(lane: Lane) -> int:
    return await lane.post(lane.body(k=8, stop={"rule": "decided", "gamma": 0.2}, return_samples=True))


async def many_responses(lane: Lane) -> int:
    body = lane.body(k=2)
    return await lane.post({**body, "responses": [f"{text} ({i})" for i in range(6) for text in body["responses"]]})


async def stream(lane: Lane) -> int:
    return await _stream(lane, read=10**9)


async def disconnect_from_stream(lane: Lane) -> int:
    return await _stream(lane, read=lane.rng.randrange(4))


async def _stream(lane: Lane, read: int) -> int:
    """Read at most `read` chunks of a stream, then disconnect."""
    headers = {"accept": "text/event-stream"}
    async with lane.client.stream("POST", "/v1/rewards", json=lane.body(k=4), headers=headers) as response:
        seen = 0
        async for _ in response.aiter_bytes():
            seen += 1
            if seen > read:
                break
        return response.status_code


async def disconnect(lane: Lane) -> str:
    return await _disconnect(lane, lane.post(lane.body(k=8)))


async def _disconnect(lane: Lane, work: Awaitable[object]) -> str:
    with suppress(TimeoutError):
        await asyncio.wait_for(work, lane.rng.uniform(0, 1.5))
        return "answered"
    return "left"


async def tight_deadline(lane: Lane) -> int:
    return await lane.post(lane.body(k=8, deadline_s=lane.rng.choice((0.01, 0.1, 0.5, 2.0))))


async def openrlhf(lane: Lane) -> int:
    """A whole group, one response per call."""
    prompt, answers = _prompt(lane, 4)
    return await _concurrently(
        lane,
        "/get_reward?n=4&k=2&max_critique_tokens=16",
        [{"query": [prompt + answer], "prompts": [prompt], "labels": [None]} for answer in answers],
    )


async def slime(lane: Lane) -> int:
    prompt, answers = _prompt(lane, 4)
    bodies = [{"prompt": prompt, "response": answer, "label": ""} for answer in answers]
    return await _concurrently(lane, "/reward?n=4&k=2&max_critique_tokens=16", bodies)


async def slime_alone(lane: Lane) -> int:
    """One response of a group whose other responses never arrive."""
    prompt, answers = _prompt(lane, 1)
    bodies = [{"prompt": prompt, "response": answers[0], "label": ""}]
    return await _concurrently(lane, "/reward?n=4&k=2&max_critique_tokens=16", bodies)


async def slime_disconnect(lane: Lane) -> str:
    return await _disconnect(lane, slime(lane))


def _prompt(lane: Lane, count: int) -> tuple[str, list[str]]:
    """A unique prompt, and `count` answers to it."""
    item = lane.rng.choice(lane._items)
    query = f"{item.query[:400]} [{secrets.token_hex(6)}]"
    prompt = f"<|im_start|>user\n{query}<|im_end|>\n<|im_start|>assistant\n"
    return prompt, [f"{item.responses[i % 2][:300]} ({i})" for i in range(count)]


async def _concurrently(lane: Lane, path: str, bodies: Sequence[Any]) -> int:
    """Send several calls at once; the highest status."""
    async with asyncio.TaskGroup() as calls:
        running = [calls.create_task(lane.post(body, path)) for body in bodies]
    return max(call.result() for call in running)


async def rerank(lane: Lane) -> int:
    body = lane.body()
    request = {"model": "judge", "query": body["query"], "documents": body["responses"]}
    return await lane.post(request, "/v1/rerank?k=2&max_critique_tokens=16")


async def read_only(lane: Lane) -> int:
    path = lane.rng.choice(("/metrics", "/health/ready", "/v1/models", f"/v1/judgements/{lane.judgement}"))
    return (await lane.client.get(path)).status_code


async def invalid(lane: Lane) -> int:
    body = lane.body()
    bad: Any = lane.rng.choice(
        (
            {**body, "kk": 1},
            {**body, "responses": []},
            {**body, "k": 10**6},
            {**body, "query": "word " * 30_000},
            {**body, "responses": ["x"], "stop": {"rule": "never"}},
        )
    )
    return await lane.post(bad)


async def not_json(lane: Lane) -> int:
    headers = {"Content-Type": "application/json"}
    return (await lane.client.post("/v1/rewards", content=b'{"query": ', headers=headers)).status_code


async def too_large(lane: Lane) -> int:
    try:
        return (await lane.client.post("/v1/rewards", content=b"x" * HUGE_BODY)).status_code
    except (httpx.WriteError, httpx.ReadError):
        # The server may close the connection before it has read the whole body.
        return 413


KINDS = (
    RequestKind("plain", 20, plain),
    RequestKind("decided", 6, decided),
    RequestKind("many responses", 2, many_responses),
    RequestKind("stream", 6, stream),
    RequestKind("left stream", 8, disconnect_from_stream),
    RequestKind("left", 8, disconnect, ("left", "answered")),
    RequestKind("late", 8, tight_deadline, (200, 504)),
    RequestKind("openrlhf", 5, openrlhf),
    RequestKind("slime", 5, slime),
    RequestKind("slime alone", 3, slime_alone),
    RequestKind("slime left", 5, slime_disconnect, ("left", "answered")),
    RequestKind("rerank", 4, rerank),
    RequestKind("reading", 10, read_only, (200, 404)),
    RequestKind("wrong", 6, invalid, (400, 422)),
    RequestKind("not json", 2, not_json, (422,)),
    RequestKind("too large", 2, too_large, (413,)),
)
