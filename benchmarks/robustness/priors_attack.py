"""Can one API key make another key's requests stop too early? Needs a running server with two keys, both unlimited.

python -m benchmarks.robustness.priors_attack --url URL --victim KEY --attacker KEY

The victim's requests are judged, then the attacker repeats one request, then the victim's requests are judged again.
Each of the victim's requests is sent with `decided` and, with the same seed, with `fixed`: the samples are the same, so
an early stop is wrong if all k samples name another best response.

The attacker looks for a request whose first samples all prefer one response by the same large margin. It teaches that
judges have no noise. With the fake engine any request will do, as its seed decides the scores.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np

from benchmarks.lib.estimates import mean_of
from grm_client import AsyncGRMClient

K = 16
FIRST_WAVE = 4
AT_ONCE = 16


async def in_order(calls: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    """The results, at most `AT_ONCE` at a time."""
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(call: Coroutine[Any, Any, Any]) -> Any:
        async with limit:
            return await call

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(call)) for call in calls]
    return [task.result() for task in tasks]


async def hostile_seed(client: AsyncGRMClient, candidates: int) -> int:
    """The seed whose first samples differ least in the gap between the two responses, and have the largest gap."""

    async def noise(seed: int) -> float:
        options: dict[str, Any] = {"k": FIRST_WAVE, "stop": {"rule": "fixed"}, "return_samples": True}
        rewards = await client.rewards("Hostile?", ["Yes.", "No."], seed=seed, **options)
        scores = np.array([sample.scores for sample in rewards.samples or () if sample.scores], dtype=float)
        gaps = scores[:, 0] - scores[:, 1]
        return float(np.var(gaps) - abs(np.mean(gaps)))

    found = await in_order([noise(seed) for seed in range(candidates)])
    return int(np.argmin(found))


async def early_stops(client: AsyncGRMClient, requests: int) -> list[bool]:
    """For each request that stops early, whether all k samples decide otherwise."""

    async def one(number: int) -> tuple[bool, bool]:
        query, responses = f"Question {number}?", ["One answer.", "Another answer."]
        stopped = await client.rewards(query, responses, k=K, seed=number, stop={"rule": "decided", "gamma": 0.05})
        full = await client.rewards(query, responses, k=K, seed=number, stop={"rule": "fixed"})
        return stopped.stop_reason == "decided", stopped.best != full.best

    outcomes = await in_order([one(number) for number in range(requests)])
    return [wrong for is_early, wrong in outcomes if is_early]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--victim", required=True, help="the victim's API key")
    parser.add_argument("--attacker", required=True, help="the attacker's API key")
    parser.add_argument("--requests", type=int, default=2000, help="of the victim")
    parser.add_argument("--repeats", type=int, default=6000, help="of the hostile request")
    parser.add_argument("--candidates", type=int, default=2000, help="seeds that the attacker tries")
    args = parser.parse_args()
    async with (
        AsyncGRMClient(args.url, api_key=args.victim) as victim,
        AsyncGRMClient(args.url, api_key=args.attacker) as attacker,
    ):
        for moment in ("before", "after"):
            early = await early_stops(victim, args.requests)
            share = mean_of(early)
            print(
                f"{moment:6} {len(early)} of {args.requests} stop early, {sum(early)} of them wrong: "
                f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})",
                flush=True,
            )
            if moment == "before":
                seed = await hostile_seed(attacker, args.candidates)
                options: dict[str, Any] = {"k": FIRST_WAVE, "stop": {"rule": "fixed"}, "seed": seed}
                await in_order([attacker.rewards("Hostile?", ["Yes.", "No."], **options) for _ in range(args.repeats)])


if __name__ == "__main__":
    asyncio.run(main())
