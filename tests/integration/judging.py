"""What fake judges say, how long they take, and requests to them."""

from collections.abc import Callable, Iterable
from typing import Any

import httpx

from grm_server.engine.fake import FakeCall, Score
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
    """Posts THREE with these changes."""
    return await client.post("/v1/rewards", json=THREE | changes)


def favours(best: str) -> Score:
    """A fake judge's scores: 9 for the response with this text and 3 for the others, in whatever order they stand."""
    return lambda call: scores("9" if best in text else "3" for text in call.shown)


def scores(points: Iterable[object]) -> str:
    """The scores in the order shown, as a sample ends."""
    return ", ".join(map(str, points)) + "}"


def stalls_after(quick: int) -> Callable[[FakeCall], float]:
    """A fake judge's delay: the first `quick` samples take no time, the others outlast the test."""
    return lambda call: 0.0 if call.index < quick else 60.0


def stalls_audits(call: FakeCall) -> float:
    """A fake judge's delay: audits outlast the test."""
    return 60.0 if call.scheduling is SchedulingClass.AUDIT else 0.0
