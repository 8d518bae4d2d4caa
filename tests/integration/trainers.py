"""Simulated trainers for tests: many single requests, and clients that disconnect."""

import asyncio
import json
from collections.abc import Coroutine
from random import Random
from typing import Any

import httpx

FAST = ("grouping.idle_s=0.05", "judge.k=2")
"""For tests in which responses do not wait for others."""
PATIENT = ("grouping.idle_s=1", "judge.k=2")
"""For tests in which members must meet, on a machine that may stall."""


async def all_at_once(calls: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call) for call in calls]
    return [task.result() for task in tasks]


def slime(prompt: str, response: str, **more: Any) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": prompt}], "response": response, "label": None} | more


async def post(client: httpx.AsyncClient, body: Any, url: str = "/reward?shape=object") -> Any:
    answer = await client.post(url, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def judged_again(client: httpx.AsyncClient, judgement_id: str) -> dict[str, float]:
    """Response -> reward, from sending the stored request of a judgement again."""
    kept = await client.get(f"/v1/judgements/{judgement_id}")
    request = kept.json()["request"]
    answer = await client.post("/v1/rewards", json=request)
    assert answer.status_code == 200, answer.text
    return dict(zip(request["responses"], answer.json()["rewards"], strict=True))


def shuffled(bodies: list[dict[str, Any]], seed: int = 1) -> list[dict[str, Any]]:
    mixed = list(bodies)
    Random(seed).shuffle(mixed)
    return mixed


class Caller:
    """One connection to the app. Unlike httpx, it can disconnect in the middle of a request."""

    def __init__(
        self, app: Any, body: Any, path: str = "/reward", query: bytes = b"shape=object", headers: Any = ()
    ) -> None:
        self._hang_up = asyncio.Event()
        self._messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        self._sent: list[Any] = []
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [(b"content-type", b"application/json"), *headers],
            "query_string": query,
        }
        self._call = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        if self._messages:
            return self._messages.pop()
        await self._hang_up.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self._sent.append(message)

    async def hang_up(self) -> None:
        self._hang_up.set()
        await self._call

    async def answer(self) -> Any:
        await self._call
        return json.loads(b"".join(message.get("body", b"") for message in self._sent))
