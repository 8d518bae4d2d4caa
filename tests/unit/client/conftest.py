"""Fixtures of the client's tests: clients of both kinds, and back-off without waiting."""

from __future__ import annotations

import pytest

from grm_client import AsyncGRMClient, GRMClient
from tests.unit.client.any_client import AnyClient


@pytest.fixture(autouse=True)
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Every back-off of a client, in seconds. The tests do not wait for it."""
    delays_s: list[float] = []

    async def record(delay_s: float) -> None:
        delays_s.append(delay_s)

    monkeypatch.setattr(GRMClient, "_sleep", staticmethod(delays_s.append))
    monkeypatch.setattr(AsyncGRMClient, "_sleep", staticmethod(record))
    return delays_s


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> AnyClient:
    """`await call(server, method, *args, client={}, **kwargs)` and `call.stream(server, *args, **kwargs)`."""
    return AnyClient(request.param)
