"""Requests to the real server, and the engine's own counts."""

import re
import time
from collections.abc import Callable
from typing import Any

from tests.e2e.conftest import Server

QUERY = "Why is the sky blue?"
RESPONSES = [
    "Air scatters blue light more than red light.",
    "Because it is.",
    "The sky reflects the sea.",
    "Rayleigh scattering: shorter wavelengths are scattered more.",
    "I do not know.",
]
SHORT: dict[str, Any] = {
    "query": QUERY,
    "responses": RESPONSES[:2],
    "k": 2,
    "seed": 1,
    "max_critique_tokens": 16,
    "stop": {"rule": "fixed"},
}


def rewards(server: Server, **changes: Any) -> dict[str, Any]:
    response = server.client.post("/v1/rewards", json=SHORT | changes)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def running(server: Server) -> float:
    """Requests that the engine runs or queues, by its own metrics."""
    text = server.client.get("/metrics").text
    return sum(float(value) for value in re.findall(r"^vllm:num_requests_(?:running|waiting)\{.*\} (\S+)$", text, re.M))


def within(seconds: float, condition: Callable[[], Any]) -> float:
    """Wait for the condition; how long it took, in seconds."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < seconds
        time.sleep(0.01)
    return time.monotonic() - began_s
