"""What a meta RM costs: requests through HTTP to a server with a judge and a meta RM, guided and not.

    python -m benchmarks.serving.meta_cost --data PATH/TO/LLMBar [--meta-rm PATH]

Rounds of requests at once, three kinds in turn. Within a round all three judge the same requests, with the same seeds;
a mark before the query makes each new to the prefix caches of both engines:

mean        k samples, voted
meta_hinge  the same samples, rated and weighted
meta_top    the same samples, rated, the better half voted

Prints what rating adds to the time of a sample (seconds of a kind over those of `mean`, less 1) and the tokens that
each engine computes for a sample, as JSON last.
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
from grm_client.types import Usage

KINDS = ("mean", "meta_hinge", "meta_top")
USAGE = tuple(Usage.model_fields)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of LLMBar (see benchmarks/lib/data.py)")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--meta-rm", default="bundled")
    parser.add_argument("--requests", type=int, default=4, help="concurrent requests in a round")
    parser.add_argument("-k", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="budget of principles and critique")
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
            # Another kind first in each round: the machine is shared.
            for kind in (*KINDS[number % len(KINDS) :], *KINDS[: number % len(KINDS)]):
                took, found = _round(url, batch, f"({number}, {kind})", {**options, "aggregate": kind})
                # The first round warms up.
                if number:
                    seconds[kind].append(took)
                    answers[kind] += found
                    print(f"round {number} {kind:10} {took:.2f} s", flush=True)
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
        "rating_over_sample": {kind: round(statistics.median(found), 3) for kind, found in ratios.items()},
        "rounds": {kind: [round(ratio, 3) for ratio in found] for kind, found in ratios.items()},
    }


def _tokens(answers: Sequence[Rewards]) -> dict[str, object]:
    """A sample's, on average: those that are in a prefix cache are not computed."""
    usage = {name: sum(getattr(answer.usage, name) for answer in answers) for name in USAGE}
    computed = {
        "judge_prompt": usage["prompt_tokens"] - usage["cached_tokens"],
        "judge_written": usage["completion_tokens"],
        "meta": usage["meta_tokens"] - usage["meta_cached_tokens"],
        "meta_cached": usage["meta_cached_tokens"],
    }
    return {"tokens_a_sample": {name: round(count / usage["samples"], 1) for name, count in computed.items()}}


def _votes(answers: dict[str, list[Rewards]]) -> dict[str, object]:
    """How many samples vote, of those that gave scores, and what the meta RM thinks of them."""
    samples = {kind: [s for answer in found for s in answer.samples or ()] for kind, found in answers.items()}
    rewards = [s.meta_reward for s in samples["meta_hinge"] if s.meta_reward is not None]
    return {
        "kept": {kind: round(statistics.mean(bool(s.kept) for s in found), 3) for kind, found in samples.items()},
        "meta_reward": [round(q, 3) for q in statistics.quantiles(rewards, n=4)],
    }


if __name__ == "__main__":
    main()
