"""The asynchronous client. It differs from `client` only in `await`; both share `transport`."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from itertools import count
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from grm_client.batch import Request, ScoreResult, score_with_tasks
from grm_client.connection import http_options
from grm_client.events import MEDIA_TYPE, Event, EventReader, is_stream, stream_response
from grm_client.options import RewardOptions, merged
from grm_client.transport import (
    DEFAULT_URL,
    JSON,
    MODELS_PATH,
    READY_PATH,
    READY_TIMEOUT_S,
    REWARDS_PATH,
    TIMEOUT_S,
    Outcome,
    Query,
    as_rewards,
    encoded,
    judgement_path,
    read_outcome,
    request_body,
    retry_delay,
    typed,
)
from grm_client.types import Judgement, Model, ModelList, Rewards


class AsyncGRMClient:
    """`GRMClient` for asyncio. Any number of calls may run concurrently, all in one event loop.

    Use it in an `async with` block, or call `aclose`.
    """

    _sleep = staticmethod(asyncio.sleep)

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        max_retries: int = 4,
        defaults: RewardOptions | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See `GRMClient`."""
        self.base_url = base_url
        self._max_retries = max_retries
        self._defaults = defaults or {}
        self._rng = random.Random()
        self._http = httpx.AsyncClient(
            **http_options(base_url, api_key, timeout_s, network=transport is None), transport=transport
        )

    async def rewards(self, query: Query, responses: Sequence[str], **options: Unpack[RewardOptions]) -> Rewards:
        """See `GRMClient.rewards` and `RewardOptions`."""
        return as_rewards(await self.post(request_body(query, responses, **merged(self._defaults, options))))

    async def stream(
        self, query: Query, responses: Sequence[str], **options: Unpack[RewardOptions]
    ) -> AsyncGenerator[Event]:
        """See `GRMClient.stream`. Python closes an asynchronous generator some time after the loop was left; use
        `contextlib.aclosing` to close it at once."""
        body = encoded(request_body(query, responses, **merged(self._defaults, options)))
        reader, failure = EventReader(), None
        outcome = await self._send_with_retries(lambda: self._open(body))
        async with aclosing(stream_response(outcome, self.base_url)) as response:
            try:
                async for chunk in response.aiter_bytes():
                    for event in reader.feed(chunk):
                        yield event
            except httpx.RequestError as error:
                failure = error
        reader.end(failure, self.base_url)

    async def score_many(
        self,
        requests: Iterable[Request],
        *,
        concurrency: int = 16,
        progress: bool = False,
        **options: Unpack[RewardOptions],
    ) -> list[ScoreResult]:
        """See `GRMClient.score_many`."""
        return await score_with_tasks(
            lambda each: self.rewards(**{**options, **each}), list(requests), concurrency, progress
        )

    async def get(self, path: str) -> dict[str, Any]:
        """GET `path` and return the answer as a JSON object. Retries and raises like `post`."""
        outcome = await self._send_with_retries(lambda: self._http.get(path))
        return read_outcome(outcome, self.base_url)

    async def post(self, body: Mapping[str, Any], path: str = REWARDS_PATH) -> dict[str, Any]:
        """See `GRMClient.post`."""
        content = encoded(body)
        outcome = await self._send_with_retries(lambda: self._http.post(path, content=content, headers=JSON))
        return read_outcome(outcome, self.base_url)

    async def judgement(self, judgement_id: str) -> Judgement:
        """See `GRMClient.judgement`."""
        return typed(Judgement, await self.get(judgement_path(judgement_id)))

    async def models(self) -> tuple[Model, ...]:
        """See `GRMClient.models`."""
        return typed(ModelList, await self.get(MODELS_PATH)).data

    async def _open(self, body: bytes) -> httpx.Response:
        """See `GRMClient._open`."""
        request = self._http.build_request("POST", REWARDS_PATH, content=body, headers=JSON | {"accept": MEDIA_TYPE})
        response = await self._http.send(request, stream=True)
        if not is_stream(response):
            await response.aread()
        return response

    async def _send_with_retries(self, attempt: Callable[[], Awaitable[httpx.Response]]) -> Outcome:
        """See `GRMClient._send_with_retries`."""
        for number in count():
            try:
                outcome: Outcome = await attempt()
            except httpx.RequestError as error:
                outcome = error
            delay_s = retry_delay(number, outcome, self._rng) if number < self._max_retries else None
            if delay_s is None:
                break
            await self._sleep(delay_s)
        return outcome

    async def ready(self) -> bool:
        """See `GRMClient.ready`."""
        try:
            return (await self._http.get(READY_PATH, timeout=READY_TIMEOUT_S)).status_code == 200
        except httpx.RequestError:
            return False

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()
