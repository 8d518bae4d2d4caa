"""Cost of a meta RM: requests to a server with a judge and a meta RM, with and without rating.

    python -m benchmarks.serving.meta_cost --data PATH/TO/LLMBar [--meta-rm PATH]

Each round sends a batch of concurrent requests three times, once per aggregate, with the same seeds. A mark before the
query makes the requests new to the prefix caches of both engines:

mean        k samples, all vote
meta_hinge  the same samples, rated and weighted
meta_top    the same samples, rated, and the better half votes

Prints how much rating adds to the time of a sample (seconds of an aggregate over those of `mean`, minus 1) and the
tokens that each engine computes per sample; JSON in the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.lib.data import Item, load_items
from benchmarks.lib.servers import KV_CACHE_GIB, running_server
from benchmarks.serving.waves import round_of
from grm_client import RewardOptions, Rewards
from grm_client.options import Aggregate
from grm_client.types import Usage

KINDS: tuple[Aggregate, ...] = ("mean", "meta_hinge", "meta_top")
USAGE = tuple(Usage.model_fields)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of LLMBar (see benchmarks/lib/data.py)")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--meta-rm", default="bundled")
    parser.add_argument("--requests", type=int, default=4, help="concurrent requests in a round")
    parser.add_argument("-k", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="token budget of principles and critique")
    parser.add_argument("--rounds", type=int, default=6)
    args = parser.parse_args()
    options: RewardOptions = {
        "k": args.k,
        "seed": 0,
        "max_critique_tokens": args.tokens,
        "stop": {"rule": "fixed"},
        "return_samples": True,
    }
    items = load_items(args.data, args.requests * (args.rounds + 1))
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    answers: dict[str, list[Rewards]] = {kind: [] for kind in KINDS}
    more = ("--meta-rm", args.meta_rm, "--set", f"engine.cpu_kv_cache_gib={KV_CACHE_GIB}")
    with running_server(args.model, *more) as url:
        for number in range(args.rounds + 1):
            batch = items[number * args.requests : (number + 1) * args.requests]
            # Rotate the order in each round, since other work on the machine may slow down one of them.
            for kind in (*KINDS[number % len(KINDS) :], *KINDS[: number % len(KINDS)]):
                round_s, rewards = _round(url, batch, f"({number}, {kind})", {**options, "aggregate": kind})
                # The first round warms up.
                if number:
                    seconds[kind].append(round_s)
                    answers[kind] += rewards
                    print(f"round {number} {kind:10} {round_s:.2f} s", flush=True)
    print(json.dumps({**_costs(seconds), **_tokens(answers["meta_hinge"]), **_votes(answers)}))


def _round(url: str, batch: Sequence[Item], mark: str, options: RewardOptions) -> tuple[float, list[Rewards]]:
    marked = [replace(item, query=f"{mark} {item.query}") for item in batch]
    return asyncio.run(round_of(url, marked, options))


def _costs(seconds: dict[str, list[float]]) -> dict[str, object]:
    ratios = {
        kind: [guided / plain - 1 for guided, plain in zip(seconds[kind], seconds["mean"], strict=True)]
        for kind in KINDS[1:]
    }
    return {
        "rating_over_sample": {kind: round(statistics.median(of_kind), 3) for kind, of_kind in ratios.items()},
        "rounds": {kind: [round(ratio, 3) for ratio in of_kind] for kind, of_kind in ratios.items()},
    }


def _tokens(answers: Sequence[Rewards]) -> dict[str, object]:
    """Mean tokens per sample. Tokens found in a prefix cache do not count as computed."""
    usage = {name: sum(getattr(answer.usage, name) for answer in answers) for name in USAGE}
    computed = {
        "judge_prompt": usage["prompt_tokens"] - usage["cached_tokens"],
        "judge_written": usage["completion_tokens"],
        "meta": usage["meta_tokens"] - usage["meta_cached_tokens"],
        "meta_cached": usage["meta_cached_tokens"],
    }
    return {"tokens_a_sample": {name: round(count / usage["samples"], 1) for name, count in computed.items()}}


def _votes(answers: dict[str, list[Rewards]]) -> dict[str, object]:
    """The share of samples that vote, and quartiles of the meta RM's rewards."""
    samples = {kind: [s for answer in of_kind for s in answer.samples or ()] for kind, of_kind in answers.items()}
    rewards = [s.meta_reward for s in samples["meta_hinge"] if s.meta_reward is not None]
    return {
        "kept": {kind: round(statistics.mean(bool(s.kept) for s in of_kind), 3) for kind, of_kind in samples.items()},
        "meta_reward": [round(q, 3) for q in statistics.quantiles(rewards, n=4)],
    }


if __name__ == "__main__":
    main()
