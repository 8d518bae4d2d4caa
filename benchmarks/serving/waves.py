"""Cost and savings of drawing samples in waves, under load.

    python -m benchmarks.serving.waves --data PATH/TO/LLMBar

Each round sends a batch of concurrent requests to the server three times, once per kind. A mark before the query makes
the requests new to the prefix cache:

fixed     all k samples at once
waves     the same samples in waves, at a level at which the rule never stops early
decided   waves with early stopping

Prints the ratio of output tokens/s of `waves` to `fixed` (the engine idles at the end of a wave) and of requests/s of
`decided` to `fixed` (the benefit); JSON in the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.lib.data import Item, load_items
from benchmarks.lib.servers import KV_CACHE_GIB, running_server
from grm_client import AsyncGRMClient, RewardOptions, Rewards, Stop

KINDS: dict[str, Stop] = {
    "fixed": {"rule": "fixed"},
    "waves": {"rule": "decided", "gamma": 1e-12},
    "decided": {"rule": "decided", "gamma": 0.05},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of LLMBar (see benchmarks/lib/data.py)")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--requests", type=int, default=16, help="concurrent requests in a round")
    parser.add_argument("-k", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="token budget of principles and critique")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    items = iter(load_items(args.data, args.requests * (args.rounds + 1)))
    rows: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    with running_server(args.model, "--set", f"engine.cpu_kv_cache_gib={KV_CACHE_GIB}") as url:
        warm_up = [next(items) for _ in range(args.requests)]
        asyncio.run(round_of(url, warm_up, _options(args, "fixed")))
        for number in range(args.rounds):
            batch = [next(items) for _ in range(args.requests)]
            # Rotate the order in each round, since other work on the machine may slow down one of them.
            rotated = [*KINDS][number % len(KINDS) :] + [*KINDS][: number % len(KINDS)]
            for kind in rotated:
                marked = [replace(item, query=f"({number}, {kind}) {item.query}") for item in batch]
                rows[kind].append(_figures(*asyncio.run(round_of(url, marked, _options(args, kind)))))
                print(f"round {number + 1} {kind:8}", {k: round(v, 3) for k, v in rows[kind][-1].items()}, flush=True)
    tokens = [w["tokens_per_s"] / f["tokens_per_s"] for w, f in zip(rows["waves"], rows["fixed"], strict=True)]
    requests = [d["requests_per_s"] / f["requests_per_s"] for d, f in zip(rows["decided"], rows["fixed"], strict=True)]
    print(
        json.dumps(
            {
                "waves_over_fixed_tokens_per_s": statistics.median(tokens),
                "decided_over_fixed_requests_per_s": statistics.median(requests),
                "rounds": {"tokens": tokens, "requests": requests},
                "k_used": statistics.mean(row["k_used"] for row in rows["decided"]),
            }
        )
    )


def _options(args: argparse.Namespace, kind: str) -> RewardOptions:
    return {"k": args.k, "seed": 0, "max_critique_tokens": args.tokens, "stop": KINDS[kind]}


async def round_of(url: str, batch: list[Item], options: RewardOptions) -> tuple[float, list[Rewards]]:
    """Send all requests of a batch at once; seconds until the last is answered, and the answers."""
    started = time.perf_counter()
    async with AsyncGRMClient(url, timeout_s=3600) as client, asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(client.rewards(item.query, item.responses, **options)) for item in batch]
    return time.perf_counter() - started, [task.result() for task in running]


def _figures(seconds: float, answers: list[Rewards]) -> dict[str, float]:
    return {
        "seconds": seconds,
        "tokens_per_s": sum(answer.usage.completion_tokens for answer in answers) / seconds,
        "requests_per_s": len(answers) / seconds,
        "k_used": statistics.mean(answer.k_used for answer in answers),
    }


if __name__ == "__main__":
    main()
