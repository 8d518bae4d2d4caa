"""What clients of `benchmarks.robustness.soak` do, and how each of these things may end."""

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
"""A server may refuse at any time."""
HUGE_BODY = 5 * 2**20


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    weight: int
    do: Callable[[Soaker], Awaitable[object]]
    """Returns an HTTP status, or a word."""
    may: tuple[object, ...] = (200,)


class Soaker:
    """One lane: a client with a random generator of its own."""

    def __init__(self, client: httpx.AsyncClient, items: Sequence[Item], rng: random.Random, tokens: int) -> None:
        self.client = client
        self.rng = rng
        self._items = items
        self._tokens = tokens
        self.judgement = "rw-none"
        """The last one that this lane was given."""

    async def once(self, kind: Kind) -> str:
        """How it ended; with the word UNEXPECTED if it may not."""
        try:
            end = await kind.do(self)
        except httpx.HTTPError as error:
            end = type(error).__name__
        return str(end) if end in kind.may or end in BUSY else f"UNEXPECTED {end}"

    def body(self, **options: Any) -> dict[str, Any]:
        """A request that no other is equal to."""
        item = self.rng.choice(self._items)
        usual = {
            "k": self.rng.choice((1, 2, 4)),
            "seed": self.rng.randrange(2**50),
            "max_critique_tokens": self._tokens,
        }
        return {"query": item.query, "responses": list(item.responses), **usual, **options}

    async def post(self, body: Any, path: str = "/v1/rewards") -> int:
        response = await self.client.post(path, json=body)
        if response.status_code == 200 and path == "/v1/rewards":
            self.judgement = response.json()["id"]
        return response.status_code


async def plain(soaker: Soaker) -> int:
    return await soaker.post(soaker.body())


async def decided(soaker: Soaker) -> int:
    return await soaker.post(soaker.body(k=8, stop={"rule": "decided", "gamma": 0.2}, return_samples=True))


async def many_responses(soaker: Soaker) -> int:
    body = soaker.body(k=2)
    return await soaker.post({**body, "responses": [f"{text} ({i})" for i in range(6) for text in body["responses"]]})


async def stream(soaker: Soaker) -> int:
    return await _stream(soaker, read=10**9)


async def left_stream(soaker: Soaker) -> int:
    return await _stream(soaker, read=soaker.rng.randrange(4))


async def _stream(soaker: Soaker, read: int) -> int:
    """Leaves after so many pieces."""
    headers = {"accept": "text/event-stream"}
    async with soaker.client.stream("POST", "/v1/rewards", json=soaker.body(k=4), headers=headers) as response:
        seen = 0
        async for _ in response.aiter_bytes():
            seen += 1
            if seen > read:
                break
        return response.status_code


async def left(soaker: Soaker) -> str:
    return await _leave(soaker, soaker.post(soaker.body(k=8)))


async def _leave(soaker: Soaker, work: Awaitable[object]) -> str:
    with suppress(TimeoutError):
        await asyncio.wait_for(work, soaker.rng.uniform(0, 1.5))
        return "answered"
    return "left"


async def late(soaker: Soaker) -> int:
    return await soaker.post(soaker.body(k=8, deadline_s=soaker.rng.choice((0.01, 0.1, 0.5, 2.0))))


async def openrlhf(soaker: Soaker) -> int:
    """A group, one response a call."""
    prompt, answers = _prompt(soaker, 4)
    return await _together(
        soaker,
        "/get_reward?n=4&k=2&max_critique_tokens=16",
        [{"query": [prompt + answer], "prompts": [prompt], "labels": [None]} for answer in answers],
    )


async def slime(soaker: Soaker) -> int:
    prompt, answers = _prompt(soaker, 4)
    bodies = [{"prompt": prompt, "response": answer, "label": ""} for answer in answers]
    return await _together(soaker, "/reward?n=4&k=2&max_critique_tokens=16", bodies)


async def slime_alone(soaker: Soaker) -> int:
    """The rest of the group never comes."""
    prompt, answers = _prompt(soaker, 1)
    bodies = [{"prompt": prompt, "response": answers[0], "label": ""}]
    return await _together(soaker, "/reward?n=4&k=2&max_critique_tokens=16", bodies)


async def slime_left(soaker: Soaker) -> str:
    return await _leave(soaker, slime(soaker))


def _prompt(soaker: Soaker, count: int) -> tuple[str, list[str]]:
    """A prompt that nobody else asks about, and answers."""
    item = soaker.rng.choice(soaker._items)
    query = f"{item.query[:400]} [{secrets.token_hex(6)}]"
    prompt = f"<|im_start|>user\n{query}<|im_end|>\n<|im_start|>assistant\n"
    return prompt, [f"{item.responses[i % 2][:300]} ({i})" for i in range(count)]


async def _together(soaker: Soaker, path: str, bodies: Sequence[Any]) -> int:
    """The worst status of several calls at once."""
    async with asyncio.TaskGroup() as calls:
        asked = [calls.create_task(soaker.post(body, path)) for body in bodies]
    return max(call.result() for call in asked)


async def rerank(soaker: Soaker) -> int:
    body = soaker.body()
    asked = {"model": "judge", "query": body["query"], "documents": body["responses"]}
    return await soaker.post(asked, "/v1/rerank?k=2&max_critique_tokens=16")


async def reading(soaker: Soaker) -> int:
    path = soaker.rng.choice(("/metrics", "/health/ready", "/v1/models", f"/v1/judgements/{soaker.judgement}"))
    return (await soaker.client.get(path)).status_code


async def wrong(soaker: Soaker) -> int:
    body = soaker.body()
    bad: Any = soaker.rng.choice(
        (
            {**body, "kk": 1},
            {**body, "responses": []},
            {**body, "k": 10**6},
            {**body, "query": "word " * 30_000},
            {**body, "responses": ["x"], "stop": {"rule": "never"}},
        )
    )
    return await soaker.post(bad)


async def not_json(soaker: Soaker) -> int:
    headers = {"Content-Type": "application/json"}
    return (await soaker.client.post("/v1/rewards", content=b'{"query": ', headers=headers)).status_code


async def too_large(soaker: Soaker) -> int:
    try:
        return (await soaker.client.post("/v1/rewards", content=b"x" * HUGE_BODY)).status_code
    except (httpx.WriteError, httpx.ReadError):
        # The server may close the connection before it has read it all.
        return 413


KINDS = (
    Kind("plain", 20, plain),
    Kind("decided", 6, decided),
    Kind("many responses", 2, many_responses),
    Kind("stream", 6, stream),
    Kind("left stream", 8, left_stream),
    Kind("left", 8, left, ("left", "answered")),
    Kind("late", 8, late, (200, 504)),
    Kind("openrlhf", 5, openrlhf),
    Kind("slime", 5, slime),
    Kind("slime alone", 3, slime_alone),
    Kind("slime left", 5, slime_left, ("left", "answered")),
    Kind("rerank", 4, rerank),
    Kind("reading", 10, reading, (200, 404)),
    Kind("wrong", 6, wrong, (400, 422)),
    Kind("not json", 2, not_json, (422,)),
    Kind("too large", 2, too_large, (413,)),
)
