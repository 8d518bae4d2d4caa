"""Both clients behind one interface, and a scripted server."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, closing
from typing import Any

import httpx

from grm_client import AsyncGRMClient, Event, GRMClient

Handler = Callable[[httpx.Request], httpx.Response]


class Server:
    """Answers with the given steps in order, repeats the last one, and records the requests."""

    def __init__(self, *steps: httpx.Response | httpx.RequestError) -> None:
        self.steps = list(steps)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, httpx.RequestError):
            raise step
        return step


class AnyClient:
    """Calls the synchronous or the asynchronous client."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    async def __call__(
        self, server: Handler, method: str, *args: Any, client: dict[str, Any] | None = None, **kwargs: Any
    ) -> Any:
        transport = httpx.MockTransport(server)
        if self.kind == "sync":
            with GRMClient(transport=transport, **client or {}) as sync_client:
                return getattr(sync_client, method)(*args, **kwargs)
        async with AsyncGRMClient(transport=transport, **client or {}) as async_client:
            return await getattr(async_client, method)(*args, **kwargs)

    async def stream(self, server: Handler, *args: Any, **kwargs: Any) -> AsyncGenerator[Event]:
        transport = httpx.MockTransport(server)
        if self.kind == "sync":
            with GRMClient(transport=transport) as sync_client, closing(sync_client.stream(*args, **kwargs)) as one:
                for event in one:
                    yield event
        else:
            async with AsyncGRMClient(transport=transport) as client, aclosing(client.stream(*args, **kwargs)) as other:
                async for event in other:
                    yield event
