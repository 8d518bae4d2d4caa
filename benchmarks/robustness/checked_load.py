"""A closed loop of callers that never retry and check every answer."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.lib.data import Item

REQUEST_S = 300.0
"""Client timeout. A request that exceeds it counts as lost."""


@dataclass
class Answer:
    """The answer to one request, or how the request failed."""

    item: int
    sent_s: float
    ended_s: float
    problem: str | None
    """Why the answer counts as lost or wrong; None if it is right."""
    scores: list[Any] = field(default_factory=list)
    """(k,) lists of scores, each (n,)."""


def body(item: Item, seed: int, k: int, tokens: int) -> dict[str, Any]:
    return {
        "query": item.query,
        "responses": item.responses,
        "k": k,
        "stop": {"rule": "fixed"},
        "seed": seed,
        "max_critique_tokens": tokens,
        "return_samples": True,
    }


def problem_of(request: dict[str, Any], response: httpx.Response) -> str | None:
    """What is wrong with an answer; None if nothing is."""
    if response.status_code != 200:
        return f"{response.status_code} {response.json()['error']['code']}"
    answer, n = response.json(), len(request["responses"])
    if not len(answer["rewards"]) == len(answer["vote_sums"]) == n:
        return "not one reward for each response"
    if not all(1 <= reward <= 10 for reward in answer["rewards"]):
        return "a reward outside 1..10"
    if not answer["k_used"] == answer["k_valid"] == len(answer["samples"]) == request["k"]:
        return "not k samples with scores"
    scores = [sample["scores"] for sample in answer["samples"]]
    if any(sorted(sample["order"]) != list(range(n)) for sample in answer["samples"]):
        return "an order that is not a permutation"
    if not all(1 <= score <= 10 for row in scores for score in row):
        return "a score outside 1..10"
    if any(sum(row[i] for row in scores) != answer["vote_sums"][i] for i in range(n)):
        return "vote_sums that are not the sums of the scores"
    return None


async def send(client: httpx.AsyncClient, item: int, request: dict[str, Any]) -> Answer:
    sent_s = time.monotonic()
    try:
        response = await client.post("/v1/rewards", json=request)
    except httpx.HTTPError as error:
        return Answer(item, sent_s, time.monotonic(), type(error).__name__)
    ended_s = time.monotonic()
    wrong = problem_of(request, response)
    scores = [] if wrong else [sample["scores"] for sample in response.json()["samples"]]
    return Answer(item, sent_s, ended_s, wrong, scores)


async def load(
    url: str, requests: list[dict[str, Any]], callers: int, stop: asyncio.Event | None = None
) -> list[Answer]:
    """Each caller sends its next request when the last one is answered.

    stop: None: send every request once; else repeat them until it is set.
    """
    answers: list[Answer] = []
    numbers = iter(range(len(requests) if stop is None else sys.maxsize))

    async def call(client: httpx.AsyncClient) -> None:
        for number in numbers:
            if stop is not None and stop.is_set():
                return
            item = number % len(requests)
            answers.append(await send(client, item, requests[item]))

    limits = httpx.Limits(max_connections=callers)
    async with (
        httpx.AsyncClient(base_url=url, timeout=REQUEST_S, limits=limits) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(callers):
            group.create_task(call(client))
    return answers
