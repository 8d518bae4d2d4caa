"""The clients. They differ in `await` alone; what they do is in `exchange`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from itertools import count
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from grm_client.batch import Request, Scored, with_tasks, with_threads
from grm_client.events import MEDIA_TYPE, Event, EventReader, is_stream, opened
from grm_client.transport import (
    READY_PATH,
    READY_TIMEOUT_S,
    REWARDS_PATH,
    TIMEOUT_S,
    Outcome,
    Query,
    RewardOptions,
    as_rewards,
    http_options,
    read_outcome,
    request_body,
    retry_delay,
)
from grm_client.types import Rewards

DEFAULT_URL = "http://127.0.0.1:8000"


class GRMClient:
    """Asks one GRM Server. Threads may share it; close it, or use it in a `with` block."""

    _sleep = staticmethod(time.sleep)

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        max_retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout_s` bounds the wait of one attempt, and the silence in a stream; by default the server's own limit
        comes first. `max_retries` attempts follow one that met a busy or absent server. `transport` replaces the
        network in tests."""
        self.base_url = base_url
        self._max_retries = max_retries
        self._rng = random.Random()
        self._http = httpx.Client(**http_options(base_url, api_key, timeout_s), transport=transport)

    def rewards(self, query: Query, responses: Sequence[str], **options: Unpack[RewardOptions]) -> Rewards:
        """Score the responses to a query.

        query: one user turn, or chat messages.
        responses: (n,), n >= 1.
        options: see `RewardOptions`.

        Raises APIError, TimedOut or ConnectionFailed.
        """
        return as_rewards(self.post(request_body(query, responses, **options)))

    def stream(self, query: Query, responses: Sequence[str], **options: Unpack[RewardOptions]) -> Generator[Event]:
        """What happens to a request, as it happens; the last event is `rewards`, the answer.

        Raises what `rewards` raises, also in the middle; an APIError there has status 200. Nothing is tried again once
        the stream has begun. The server drops the rest of the samples when the generator is closed, which leaving the
        loop does.
        """
        body = request_body(query, responses, **options)
        reader, failure = EventReader(), None
        with closing(opened(self._last_outcome(lambda: self._open(body)), self.base_url)) as response:
            try:
                for chunk in response.iter_bytes():
                    yield from reader.feed(chunk)
            except httpx.RequestError as error:
                failure = error
        reader.end(failure, self.base_url)

    def score_many(
        self,
        requests: Iterable[Request],
        *,
        concurrency: int = 16,
        progress: bool = False,
        **options: Unpack[RewardOptions],
    ) -> list[Scored]:
        """Score many requests, `concurrency` of them at once, and return what became of each, in their order.

        requests: mappings with what `rewards` takes, by name: `{"query": ..., "responses": [...]}`.
        progress: show a bar on standard error.
        options: for the requests that do not say.

        A request that fails does not end the others: its GRMClientError stands in its place.
        """
        return with_threads(lambda each: self.rewards(**{**options, **each}), list(requests), concurrency, progress)

    def post(self, body: Mapping[str, Any], path: str = REWARDS_PATH) -> dict[str, Any]:
        """Request and answer as the JSON objects they are, with the same retries and errors as `rewards`.

        path: another route that answers with an object and may be asked twice, as all that score may; it may have a
        query string.
        """
        outcome = self._last_outcome(lambda: self._http.post(path, json=body))
        return read_outcome(outcome, self.base_url)

    def _open(self, body: Mapping[str, Any]) -> httpx.Response:
        """A stream that has begun, or a whole answer of another kind."""
        request = self._http.build_request("POST", REWARDS_PATH, json=body, headers={"accept": MEDIA_TYPE})
        response = self._http.send(request, stream=True)
        if not is_stream(response):
            response.read()
        return response

    def _last_outcome(self, attempt: Callable[[], httpx.Response]) -> Outcome:
        """What became of the last attempt."""
        for number in count():
            try:
                outcome: Outcome = attempt()
            except httpx.RequestError as error:
                outcome = error
            delay_s = retry_delay(number, outcome, self._rng) if number < self._max_retries else None
            if delay_s is None:
                break
            self._sleep(delay_s)
        return outcome

    def ready(self) -> bool:
        """Whether the server would take a request now. Asks once and never raises for an absent server."""
        try:
            return self._http.get(READY_PATH, timeout=READY_TIMEOUT_S).status_code == 200
        except httpx.RequestError:
            return False

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class AsyncGRMClient:
    """`GRMClient` for asyncio; many calls may run at once."""

    _sleep = staticmethod(asyncio.sleep)

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        max_retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See `GRMClient`."""
        self.base_url = base_url
        self._max_retries = max_retries
        self._rng = random.Random()
        self._http = httpx.AsyncClient(**http_options(base_url, api_key, timeout_s), transport=transport)

    async def rewards(self, query: Query, responses: Sequence[str], **options: Unpack[RewardOptions]) -> Rewards:
        """See `GRMClient.rewards`."""
        return as_rewards(await self.post(request_body(query, responses, **options)))

    async def stream(
        self, query: Query, responses: Sequence[str], **options: Unpack[RewardOptions]
    ) -> AsyncGenerator[Event]:
        """See `GRMClient.stream`. Leaving the loop closes an asynchronous generator late; use `contextlib.aclosing` to
        have it closed at once."""
        body = request_body(query, responses, **options)
        reader, failure = EventReader(), None
        async with aclosing(opened(await self._last_outcome(lambda: self._open(body)), self.base_url)) as response:
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
    ) -> list[Scored]:
        """See `GRMClient.score_many`."""
        return await with_tasks(lambda each: self.rewards(**{**options, **each}), list(requests), concurrency, progress)

    async def post(self, body: Mapping[str, Any], path: str = REWARDS_PATH) -> dict[str, Any]:
        """See `GRMClient.post`."""
        outcome = await self._last_outcome(lambda: self._http.post(path, json=body))
        return read_outcome(outcome, self.base_url)

    async def _open(self, body: Mapping[str, Any]) -> httpx.Response:
        """See `GRMClient._open`."""
        request = self._http.build_request("POST", REWARDS_PATH, json=body, headers={"accept": MEDIA_TYPE})
        response = await self._http.send(request, stream=True)
        if not is_stream(response):
            await response.aread()
        return response

    async def _last_outcome(self, attempt: Callable[[], Awaitable[httpx.Response]]) -> Outcome:
        """See `GRMClient._last_outcome`."""
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
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()
