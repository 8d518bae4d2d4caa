"""The clients. They differ in `await` alone; what they do is in `exchange`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Self

import httpx

from grm_client.exchange import (
    READY_PATH,
    READY_TIMEOUT_S,
    REWARDS_PATH,
    Outcome,
    Query,
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
        timeout_s: float = 600.0,
        max_retries: int = 4,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """`timeout_s` bounds the wait of one attempt; `max_retries` attempts follow one that met a busy or absent
        server. `transport` replaces the network in tests."""
        self.base_url = base_url
        self._max_retries = max_retries
        self._rng = random.Random()
        self._http = httpx.Client(**http_options(base_url, api_key, timeout_s), transport=transport)

    def rewards(
        self,
        query: Query,
        responses: Sequence[str],
        *,
        k: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        max_critique_tokens: int | None = None,
        reference: str | None = None,
        principles: str | None = None,
        min_votes: int | None = None,
        return_samples: bool | None = None,
    ) -> Rewards:
        """Score the responses to a query. None leaves an option to the server.

        query: one user turn, or chat messages.
        responses: (n,), n >= 1.
        k: samples to draw; more samples, finer and steadier rewards, more time.
        temperature: of principles, critique and scores.
        seed: fixes the orders and the seed of every sample.
        max_critique_tokens: budget of one sample's principles and critique together.
        reference: a known good answer, shown to the judge.
        principles: criteria to judge under, instead of the judge's own.
        min_votes: raise APIError rather than answer with fewer valid samples.
        return_samples: also return what the judge wrote.

        Raises APIError, TimedOut or ConnectionFailed.
        """
        body = request_body(
            query,
            responses,
            k=k,
            temperature=temperature,
            seed=seed,
            max_critique_tokens=max_critique_tokens,
            reference=reference,
            principles=principles,
            min_votes=min_votes,
            return_samples=return_samples,
        )
        return as_rewards(self.post(body))

    def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Request and answer as the JSON objects they are, with the same retries and errors as `rewards`."""
        for attempt in count():
            try:
                outcome: Outcome = self._http.post(REWARDS_PATH, json=body)
            except httpx.RequestError as error:
                outcome = error
            delay_s = retry_delay(attempt, outcome, self._rng) if attempt < self._max_retries else None
            if delay_s is None:
                break
            self._sleep(delay_s)
        return read_outcome(outcome, self.base_url)

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
        timeout_s: float = 600.0,
        max_retries: int = 4,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """See `GRMClient`."""
        self.base_url = base_url
        self._max_retries = max_retries
        self._rng = random.Random()
        self._http = httpx.AsyncClient(**http_options(base_url, api_key, timeout_s), transport=transport)

    async def rewards(
        self,
        query: Query,
        responses: Sequence[str],
        *,
        k: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        max_critique_tokens: int | None = None,
        reference: str | None = None,
        principles: str | None = None,
        min_votes: int | None = None,
        return_samples: bool | None = None,
    ) -> Rewards:
        """See `GRMClient.rewards`."""
        body = request_body(
            query,
            responses,
            k=k,
            temperature=temperature,
            seed=seed,
            max_critique_tokens=max_critique_tokens,
            reference=reference,
            principles=principles,
            min_votes=min_votes,
            return_samples=return_samples,
        )
        return as_rewards(await self.post(body))

    async def post(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """See `GRMClient.post`."""
        for attempt in count():
            try:
                outcome: Outcome = await self._http.post(REWARDS_PATH, json=body)
            except httpx.RequestError as error:
                outcome = error
            delay_s = retry_delay(attempt, outcome, self._rng) if attempt < self._max_retries else None
            if delay_s is None:
                break
            await self._sleep(delay_s)
        return read_outcome(outcome, self.base_url)

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
