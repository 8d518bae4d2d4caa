"""What the client's tests share: an answer as the server writes it, clients of both kinds, back-off without waiting."""

from __future__ import annotations

import pytest

from grm_client import AsyncGRMClient, GRMClient
from tests.unit.client.asking import Asked


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every back-off a client took, in seconds; none of them is waited for."""
    taken: list[float] = []

    async def note(delay_s: float) -> None:
        taken.append(delay_s)

    monkeypatch.setattr(GRMClient, "_sleep", staticmethod(taken.append))
    monkeypatch.setattr(AsyncGRMClient, "_sleep", staticmethod(note))
    return taken


@pytest.fixture(params=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Asked:
    """`await ask(server, method, *args, client={}, **kwargs)` and `ask.stream(server, *args, **kwargs)`."""
    return Asked(request.param)
