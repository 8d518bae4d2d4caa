"""The share of samples that give scores on real prompts, on a running server.

    python -m benchmarks.serving.parse_rate --data PATH/TO/LLMBar --data PATH/TO/RM-Bench --items 100

`--items` is split evenly over the data sets. Prints samples by outcome and the number of critiques that hit their token
budget; JSON in the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections import Counter
from pathlib import Path

from rich.progress import track

from benchmarks.lib.data import Item, load_items
from grm_client import AsyncGRMClient, Rewards


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of LLMBar or RM-Bench")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("-k", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="token budget of principles and critique")
    parser.add_argument("--concurrency", type=int, default=12)
    args = parser.parse_args()
    share = -(-args.items // len(args.data))
    items = [item for path in args.data for item in load_items(path, share)][: args.items]
    started = time.perf_counter()
    answers = asyncio.run(judge(items, args))
    seconds = time.perf_counter() - started
    outcomes = Counter(sample.failure or "valid" for answer in answers for sample in answer.samples or ())
    samples = outcomes.total()
    cut = sum(sample.finish_reason == "length" for answer in answers for sample in answer.samples or ())
    print(f"{len(answers)} requests, {samples} samples in {seconds:.0f} s: {dict(outcomes)}, {cut} of them cut")
    print(json.dumps({"parse_rate": outcomes["valid"] / samples, "samples": samples, "cut": cut, **outcomes}))


async def judge(items: list[Item], args: argparse.Namespace) -> list[Rewards]:
    async with AsyncGRMClient(args.url, timeout_s=3600) as client:
        slots = asyncio.Semaphore(args.concurrency)

        async def one(item: Item) -> Rewards:
            async with slots:
                return await client.rewards(
                    item.query,
                    item.responses,
                    k=args.k,
                    seed=0,
                    max_critique_tokens=args.tokens,
                    stop={"rule": "fixed"},
                    return_samples=True,
                )

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(one(item)) for item in items]
            return [await task for task in track(running, "judging")]


if __name__ == "__main__":
    main()
