"""A server under load, for tests: tenants, a full fake engine, and a check that nothing is left of any request."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import FastAPI

from grm_server.admission.controller import Admission, Snapshot
from grm_server.app import create_app
from grm_server.engine.fake import FakeEngine
from grm_server.engine.protocol import MetaRM
from grm_server.settings import load_settings

T = TypeVar("T")
FULL = "admission.max_running_samples=4"
ONE = {"query": "Why?", "responses": ["A.", "B."], "k": 1}


TENANTS = ("anonymous", "trainer", "other", "A", "B", "x")


def key(tenant: str) -> dict[str, str]:
    """The header that authenticates a tenant."""
    return {"x-api-key": f"{tenant:-<24}"}


RAW_KEY = [(name.encode(), value.encode()) for name, value in key("anonymous").items()]


class Loaded:
    """An app under load, and a client for it."""

    def __init__(self, app: FastAPI, client: httpx.AsyncClient, engine: FakeEngine) -> None:
        self.app = app
        self.client = client
        self.engine = engine
        self._calls: list[asyncio.Task[httpx.Response]] = []

    @property
    def admission(self) -> Admission:
        admission: Admission = self.app.state.service.judging.admission
        return admission

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return self.admission.snapshot().waiting_requests

    async def ask(self, tenant: str = "anonymous", *, stream: bool = False, **changes: Any) -> httpx.Response:
        headers = key(tenant) | ({"accept": "text/event-stream"} if stream else {})
        return await self.client.post("/v1/rewards", json=ONE | changes, headers=headers)

    def burst(self, count: int, tenant: str = "anonymous", **changes: Any) -> list[asyncio.Task[httpx.Response]]:
        # Distinct responses, or the requests would be coalesced.
        return [
            self.begin(tenant, **({"responses": [f"{tenant} {number}.", "B."]} | changes)) for number in range(count)
        ]

    def begin(self, tenant: str = "anonymous", **changes: Any) -> asyncio.Task[httpx.Response]:
        call = asyncio.ensure_future(self.ask(tenant, **changes))
        self._calls.append(call)
        return call

    async def hang_up(self) -> None:
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)

    async def until_waiting(self, count: int) -> None:
        async with asyncio.timeout(20):
            while self.waiting < count:
                await asyncio.sleep(0.002)

    async def until_running(self, count: int) -> None:
        async with asyncio.timeout(20):
            while self.engine.running < count:
                await asyncio.sleep(0.002)

    async def until_empty(self) -> None:
        """Wait for the end of all requests, which must leave nothing behind."""
        async with asyncio.timeout(5):
            while self.engine.running or self.waiting:
                await asyncio.sleep(0.002)
        assert self.admission.snapshot() == Snapshot()


async def answers(calls: Sequence[asyncio.Task[T]]) -> list[T]:
    """Of all of them, when they are there."""
    await asyncio.wait(calls)
    return [call.result() for call in calls]


@asynccontextmanager
async def loaded(
    tmp_path: Path, engine: FakeEngine, *overrides: str, meta_rm: MetaRM | None = None
) -> AsyncIterator[Loaded]:
    quiet = (f"cache_dir={tmp_path}", "stopping.rule=fixed", "stopping.audit_share=0", "stopping.speculate_below=0")
    kind = ("meta_rm.kind=fake",) if meta_rm is not None else ()
    keys = json.dumps({tenant: key(tenant)["x-api-key"] for tenant in TENANTS})
    app = create_app(load_settings({}, (*quiet, f"auth.keys={keys}", *kind, *overrides)), engine, meta_rm)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://grm", headers=key("anonymous"), timeout=60
        ) as client:
            server = Loaded(app, client, engine)
            try:
                yield server
            finally:
                await server.hang_up()
