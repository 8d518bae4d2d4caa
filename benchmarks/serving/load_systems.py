"""The systems that `benchmarks.serving.load` compares: same requests, same figures."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import httpx
from openai import AsyncOpenAI

from benchmarks.lib.arrivals import Job, TimedResult, closed_loop, open_loop, percentiles, poisson
from benchmarks.lib.data import Item
from benchmarks.lib.servers import scrape
from benchmarks.lib.workloads import Prompts, Workload
from benchmarks.serving.baseline import SamplingOptions, connect, n_is_k, separate
from grm_client import AsyncGRMClient, Stop

OURS = ("fixed", "decided")
BASELINES = {
    "separate": separate,
    "n=k": n_is_k,
    "separate-free": separate,
    "n=k-free": n_is_k,
    "separate-default": separate,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request."""

    item: int
    samples: int
    """Samples drawn."""
    parsed: int
    """Samples with scores."""
    best: int | None
    """Index of the best response; None without scores."""
    lengths: tuple[int, ...] = ()
    """Tokens of each sample, if the server reports them."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running server, and what requests to it have in common."""

    url: str
    prompts: Prompts
    tokens: int
    """Token budget of principles and critique."""
    gamma: float
    process: str

    async def warm_up(self, items: list[Item], workload: Workload) -> None:
        """Send one request per item, all at once. The items must not be used otherwise."""
        system = self.process if self.process in OURS else "separate-free"
        options = SamplingOptions(workload.k, 0.5, self.tokens)
        async with AsyncExitStack() as stack:
            send = await _sender(self, system, options, 0, stack)
            await closed_loop([partial(send, number, item) for number, item in enumerate(items)], len(items))


def run_closed_loop(
    endpoint: Endpoint, system: str, items: list[Item], options: SamplingOptions, in_flight: int, *, seed: int
) -> dict[str, Any]:
    """All items, `in_flight` requests at once."""
    return _cell(endpoint, system, items, options, seed, lambda jobs: closed_loop(jobs, in_flight))


def run_open_loop(
    endpoint: Endpoint, system: str, items: list[Item], options: SamplingOptions, rate: float, *, seed: int
) -> dict[str, Any]:
    """All items, `rate` of them per second on average, at the same times for every system."""
    at_s = poisson(rate, seed, count=len(items))
    row = _cell(endpoint, system, items, options, seed, lambda jobs: open_loop(jobs, at_s))
    return row | {"offered_requests_per_s": rate}


def _cell(
    endpoint: Endpoint,
    system: str,
    items: list[Item],
    options: SamplingOptions,
    seed: int,
    run: Callable[[list[Job[Answer]]], Awaitable[list[TimedResult[Answer]]]],
) -> dict[str, Any]:
    async def measure() -> list[TimedResult[Answer]]:
        async with AsyncExitStack() as stack:
            send = await _sender(endpoint, system, options, seed, stack)
            return await run([partial(send, number, item) for number, item in enumerate(items)])

    if system in BASELINES:
        _empty_cache(endpoint.url)
    before = scrape(endpoint.url)
    timed = asyncio.run(measure())
    after = scrape(endpoint.url)
    return figures(timed, {name: after[name] - before.get(name, 0.0) for name in after}, len(items[0].responses))


def _empty_cache(url: str) -> None:
    """Empty the prefix cache, or systems that share a server would hit each other's prompts.

    Retries, because the server refuses while a request is still finishing.
    """
    while not httpx.post(f"{url}/reset_prefix_cache", timeout=30).raise_for_status().json()["success"]:
        time.sleep(0.1)


async def _sender(
    endpoint: Endpoint, system: str, options: SamplingOptions, seed: int, stack: AsyncExitStack
) -> Callable[[int, Item], Awaitable[Answer]]:
    if system in OURS:
        ours = await stack.enter_async_context(AsyncGRMClient(endpoint.url, timeout_s=3600))
        return partial(_send_to_grm, ours, endpoint, system, options)
    theirs = await stack.enter_async_context(connect(endpoint.url))
    return partial(_send_to_baseline, theirs, endpoint.prompts, system, options, random.Random(seed))


async def _send_to_grm(
    client: AsyncGRMClient, endpoint: Endpoint, system: str, options: SamplingOptions, number: int, item: Item
) -> Answer:
    stop: Stop = {"rule": "fixed"} if system == "fixed" else {"rule": "decided", "gamma": endpoint.gamma}
    answer = await client.rewards(
        item.query,
        item.responses,
        k=options.k,
        seed=number,
        temperature=options.temperature,
        max_critique_tokens=endpoint.tokens,
        stop=stop,
        return_samples=True,
    )
    assert answer.samples is not None
    lengths = tuple(sample.completion_tokens for sample in answer.samples)
    return Answer(number, answer.usage.samples, answer.k_valid, answer.best, lengths)


async def _send_to_baseline(
    client: AsyncOpenAI,
    prompts: Prompts,
    system: str,
    options: SamplingOptions,
    rng: random.Random,
    number: int,
    item: Item,
) -> Answer:
    all_lengths = itertools.cycle(options.lengths)
    lengths = tuple(itertools.islice(all_lengths, number * options.k, (number + 1) * options.k))
    answer = await BASELINES[system](client, prompts, item, replace(options, lengths=lengths), rng)
    best = None if answer.rewards is None else answer.rewards.index(max(answer.rewards))
    return Answer(number, answer.samples, answer.parsed, best)


def figures(timed: list[TimedResult[Answer]], counter_deltas: dict[str, float], n: int) -> dict[str, Any]:
    """What a cell says. counted: what the server's metrics have grown by; n: responses of a request."""
    seconds = max(each.done_s for each in timed)
    samples = sum(each.result.samples for each in timed)
    parsed = sum(each.result.parsed for each in timed)
    written = counter_deltas.get(
        "vllm:generation_tokens_total", counter_deltas.get("grm_tokens_total{kind=completion}", 0.0)
    )
    queried = counter_deltas.get("vllm:prefix_cache_queries_total", 0.0)
    computed = counter_deltas.get("vllm:prompt_tokens_by_source_total{source=local_compute}", 0.0)
    return {
        "seconds": seconds,
        "requests": len(timed),
        "requests_per_s": len(timed) / seconds,
        "samples_per_s": samples / seconds,
        "scores_per_s": parsed * n / seconds,
        "tokens_per_s": written / seconds,
        "tokens_per_sample": written / samples,
        "tokens_per_reward": written / len(timed),
        "computed_prompt_tokens_per_reward": computed / len(timed),
        "cached_share": counter_deltas.get("vllm:prefix_cache_hits_total", 0.0) / queried if queried else 0.0,
        "parsed_share": parsed / samples,
        "samples_per_request": samples / len(timed),
        "lengths": [length for each in timed for length in each.result.lengths],
        **percentiles([each.latency_s for each in timed]),
        "answers": [
            {"item": each.result.item, "best": each.result.best, "latency_s": each.latency_s}
            for each in sorted(timed, key=lambda each: each.result.item)
        ],
    }
