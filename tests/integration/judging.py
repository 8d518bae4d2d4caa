"""Judges for tests, and a request to ask them."""

from typing import Any

import httpx

from grm_server.engine.fake import FakeEngine
from grm_server.engine.protocol import SchedulingClass

PAIR = {"query": "Why?", "responses": ["A.", "B."], "k": 16, "seed": 5}
THREE = {"query": "Why?", "responses": ["A.", "B.", "C."], "k": 6, "seed": 5}
LONG = [f"Response number {i}." for i in range(20)]


async def post(client: httpx.AsyncClient, status: int = 200, **changes: Any) -> dict[str, Any]:
    response = await client.post("/v1/rewards", json=PAIR | changes)
    assert response.status_code == status, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def respond(client: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    """To THREE."""
    return await client.post("/v1/rewards", json=THREE | changes)


def favours(best: str) -> Any:
    """A fake judge that gives the response with this text a 9 and the others a 3, wherever they stand."""

    class Judge(FakeEngine):
        async def _write(self, prepared: Any, seed: int, scheduling: SchedulingClass) -> Any:
            shown = prepared.script.prompt.split("[The Begin of Response ")[1:]
            self.outcomes.append(", ".join("9" if best in text else "3" for text in shown) + "}")
            return await super()._write(prepared, seed, scheduling)

    return Judge


class Slow(FakeEngine):
    """The first `quick` samples take no time, the others take for ever."""

    def __init__(self, quick: int, *args: Any) -> None:
        super().__init__(*args)
        self.quick = quick

    async def _write(self, prepared: Any, seed: int, scheduling: SchedulingClass) -> Any:
        self.delay_s = 0.0 if self.started < self.quick else 60.0
        return await super()._write(prepared, seed, scheduling)
