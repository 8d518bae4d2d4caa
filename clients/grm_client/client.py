"""The synchronous client. `async_client` differs from it only in `await`; both share `transport`."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from itertools import count
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from grm_client.batch import Request, ScoreResult, score_with_threads
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


class GRMClient:
    """Synchronous client of one GRM Server. Thread-safe. Use it in a `with` block, or call `close`."""

    _sleep = staticmethod(time.sleep)

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        max_retries: int = 4,
        defaults: RewardOptions | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Open no connection yet; `ready` tells whether the server is up.

        base_url: the server's address, with or without a path prefix; `http://` may be left out.
        api_key: sent as a bearer token, without the white space around it.
        timeout_s: longest wait for the answer of one attempt, and longest silence in a stream. The default exceeds the
            server's own limit, so the server times out first.
        max_retries: attempts after the first one, when the server is busy (429, 503) or cannot be reached
            (also 502 and 504 of a proxy).
        defaults: options of every request, such as `{"k": 32}`. A call's own options take precedence; None in a call
            selects the server's default.
        transport: replaces the network, for tests.
        """
        self.base_url = base_url
        self._max_retries = max_retries
        self._defaults = defaults or {}
        self._rng = random.Random()
        self._http = httpx.Client(
            **http_options(base_url, api_key, timeout_s, network=transport is None), transport=transport
        )

    def rewards(self, query: Query, responses: Sequence[str], **options: Unpack[RewardOptions]) -> Rewards:
        """Score the responses to a query.

        query: one user turn, or chat messages.
        responses: (n,), n >= 1.
        options: k, stop, deadline_s, min_votes, list_size, priority, aggregate, k_meta, meta_rm_failure, reading,
            reference, principles, principles_from, thoughts, hint, format, thinking, temperature, seed,
            max_critique_tokens, max_thought_tokens, task, return_samples.
            `help(RewardOptions)` explains them. None selects the server's default.

        Raises APIError, InvalidRequest, TimedOut or ConnectionFailed.
        """
        return as_rewards(self.post(request_body(query, responses, **merged(self._defaults, options))))

    def stream(self, query: Query, responses: Sequence[str], **options: Unpack[RewardOptions]) -> Generator[Event]:
        """Score the responses and yield each event as it happens. The last event is `rewards`, the answer, and
        `event.rewards` its typed form.

        Takes the arguments of `rewards` and raises the same errors, also in the middle of the stream; an APIError there
        has status 200. A stream that has started is not retried. Leaving the loop closes the generator, and the server
        then aborts the remaining samples.
        """
        body = encoded(request_body(query, responses, **merged(self._defaults, options)))
        reader, failure = EventReader(), None
        outcome = self._send_with_retries(lambda: self._open(body))
        with closing(stream_response(outcome, self.base_url)) as response:
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
    ) -> list[ScoreResult]:
        """Score many requests and return their results in order.

        requests: mappings with the arguments of `rewards`: `{"query": ..., "responses": [...]}`.
        concurrency: requests in flight at once.
        progress: show a progress bar on standard error; needs rich (`pip install rich`).
        options: defaults for all requests; a request's own options take precedence.

        A failed request does not stop the others: its GRMClientError takes the place of its Rewards.
        """
        return score_with_threads(
            lambda each: self.rewards(**{**options, **each}), list(requests), concurrency, progress
        )

    def post(self, body: Mapping[str, Any], path: str = REWARDS_PATH) -> dict[str, Any]:
        """Send a JSON object and return the answer's JSON object, with the retries and errors of `rewards`.

        path: any route of the server that returns an object and is safe to retry, as all scoring routes are. It may
            include a query string.
        """
        content = encoded(body)
        outcome = self._send_with_retries(lambda: self._http.post(path, content=content, headers=JSON))
        return read_outcome(outcome, self.base_url)

    def judgement(self, judgement_id: str) -> Judgement:
        """Why the rewards of an answer, named by its `id`, came out as they did: all samples, and the request again.

        Raises the errors of `rewards`; APIError with status 404 for a judgement that has expired.
        """
        return typed(Judgement, self._get(judgement_path(judgement_id)))

    def models(self) -> tuple[Model, ...]:
        """The judge of the server, and its meta RM if it has one. Raises the errors of `rewards`."""
        return typed(ModelList, self._get(MODELS_PATH)).data

    def _get(self, path: str) -> dict[str, Any]:
        return read_outcome(self._send_with_retries(lambda: self._http.get(path)), self.base_url)

    def _open(self, body: bytes) -> httpx.Response:
        """Start a stream. A response that is not an event stream is read whole."""
        request = self._http.build_request("POST", REWARDS_PATH, content=body, headers=JSON | {"accept": MEDIA_TYPE})
        response = self._http.send(request, stream=True)
        if not is_stream(response):
            response.read()
        return response

    def _send_with_retries(self, attempt: Callable[[], httpx.Response]) -> Outcome:
        """The outcome of the last attempt."""
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
        """Whether the server accepts requests now. One attempt; False if the server cannot be reached."""
        try:
            return self._http.get(READY_PATH, timeout=READY_TIMEOUT_S).status_code == 200
        except httpx.RequestError:
            return False

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
