"""Prompt tokens that vLLM computes for one request, by vLLM's own count: designed orders against shuffled ones.

    python -m benchmarks.serving.prefill --data PATH/TO/RM-Bench

n = 4 responses, k = 32 samples. The designed orders are the four of a Williams design. Shuffled orders are drawn at
random for each sample; about 18 of the 24 possible ones occur. The engine has not seen the text of any request before.
Prints both counts and their ratio; JSON in the last line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

from prometheus_client import REGISTRY

from benchmarks.lib.data import Item, load_items
from benchmarks.lib.servers import KV_CACHE_GIB
from benchmarks.lib.workloads import TEMPERATURE
from grm_server.app.formats import judge_format
from grm_server.engine.bundled import NAME, bundled_model
from grm_server.engine.protocol import JudgeEngine, Outcome, SchedulingClass
from grm_server.engine.vllm.judge import start_vllm
from grm_server.grm.plan import plan
from grm_server.grm.prompt_template import sanitized
from grm_server.grm.prompts import Budgets, write_script
from grm_server.grm.script import Sample, Sampling, Script
from grm_server.grm.types import Draw, Failure, FailureReason, Message, Task
from grm_server.pipeline.in_flight import InFlightSamples
from grm_server.settings import EngineSettings, Settings

N, K = 4, 32
KINDS = ("designed", "shuffled")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of RM-Bench (see benchmarks/lib/data.py)")
    parser.add_argument("--items", type=int, default=4, help="requests of each kind")
    parser.add_argument("--tokens", type=int, default=32, help="token budget of principles and critique")
    args = parser.parse_args()
    items = [item for item in load_items(args.data, 1000) if len(item.responses) == N][: args.items]
    rows = asyncio.run(measure(items, args.tokens))
    total: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for kind, row in rows:
        total[kind].update(row)
    ratios = {name: total["shuffled"][name] / total["designed"][name] for name in total["designed"]}
    for kind in KINDS:
        print(f"{kind}: {dict(total[kind])} over {args.items} requests")
    print(json.dumps({"shuffled / designed": ratios, **{kind: dict(total[kind]) for kind in KINDS}}))


async def measure(items: list[Item], tokens: int) -> list[tuple[str, dict[str, int]]]:
    """Both kinds of orders in turn. A line before the query keeps one kind from hitting the other's cached prefix."""
    settings = EngineSettings(cpu_kv_cache_gib=KV_CACHE_GIB)
    engine = await start_vllm(settings, str(bundled_model(Settings().cache_dir)), NAME)
    form = judge_format()
    rows = []
    try:
        for number, item in enumerate(items):
            for kind in KINDS:
                task = Task((Message("user", f"({kind} {number})\n{item.query}"),), item.responses)
                scripts = {
                    draw: write_script(form, sanitized(task, form.structure), draw.order, Budgets(tokens))
                    for draw in draws(kind, number)
                }
                rows.append((kind, await request(engine, scripts)))
                print(kind, rows[-1][1], flush=True)
    finally:
        await engine.close()
    return rows


def draws(kind: str, seed: int) -> tuple[Draw, ...]:
    designed = plan(range(N), K, seed)
    if kind == "designed":
        return designed
    rng = random.Random(seed)
    return tuple(replace(draw, order=tuple(rng.sample(range(N), N))) for draw in designed)


async def request(engine: JudgeEngine, scripts: dict[Draw, Script]) -> dict[str, int]:
    """Draw all samples at once; token counts of the request."""
    before = computed()
    prepared = {draw.order: engine.prepare(script) for draw, script in scripts.items()}
    samples: list[Sample] = []

    def on_sample(draw: Draw, outcome: Outcome) -> Failure:
        assert isinstance(outcome, Sample)
        samples.append(outcome)
        return Failure(draw, FailureReason.NO_SCORES, outcome)

    async with InFlightSamples(engine.sample, Sampling(TEMPERATURE), 3600, on_sample) as in_flight:
        for order in prepared:
            in_flight.start([draw for draw in scripts if draw.order == order], prepared[order], SchedulingClass.NEW)
        for _ in scripts:
            await in_flight.next()
    return {
        "distinct_prompts": len(prepared),
        "prompt_tokens": sum(sample.prompt_tokens for sample in samples),
        # For the prompts alone, and in total: each segment after the first computes the end of its context again.
        "computed_of_prompts": sum(sample.prompt_tokens - sample.cached_tokens for sample in samples),
        "computed_in_all": computed() - before,
    }


def computed() -> int:
    """vLLM's counter of prompt tokens that missed the prefix cache."""
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name == "vllm:prompt_tokens_by_source_total" and sample.labels["source"] == "local_compute":
                return int(sample.value)
    return 0


if __name__ == "__main__":
    main()
