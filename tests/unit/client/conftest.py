"""What the client's tests share: an answer as the server writes it, and back-off without waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from grm_client import AsyncGRMClient, GRMClient

Answer = Callable[..., dict[str, Any]]


@pytest.fixture
def answer() -> Answer:
    """Builds the JSON object of an answer; keyword arguments replace fields."""

    def build(**fields: Any) -> dict[str, Any]:
        return {
            "id": "rw-1",
            "model": "judge",
            "rewards": [2.125, 5.625, 2.125],
            "ranking": [1, 0, 2],
            "best": 1,
            "ties": [[0, 2]],
            "vote_sums": [17, 45, 17],
            "k": 9,
            "k_valid": 8,
            "failures": {"no_scores": 1},
            "seed": 7,
            "samples": None,
            "usage": {"prompt_tokens": 1000, "cached_tokens": 600, "completion_tokens": 240},
            "timing": {"queue_s": 0.25, "generate_s": 1.0, "total_s": 1.25},
        } | fields

    return build


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every back-off a client took, in seconds; none of them is waited for."""
    taken: list[float] = []

    async def note(delay_s: float) -> None:
        taken.append(delay_s)

    monkeypatch.setattr(GRMClient, "_sleep", staticmethod(taken.append))
    monkeypatch.setattr(AsyncGRMClient, "_sleep", staticmethod(note))
    return taken
