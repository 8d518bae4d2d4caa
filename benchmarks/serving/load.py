"""The server against what a user would write today, on the same model, machine, prompts and engine settings.

    make baseline
    python -m benchmarks.serving.load --data PATH/TO/LLMBar --data PATH/TO/RM-Bench

fixed           GRM Server, all k samples
decided         GRM Server, as many as `decided` wants at --gamma
separate        k calls to `vllm serve`, random orders, regex and mean (benchmarks/serving/baseline.py)
n=k             one call with n = k, one fixed order
separate-free, n=k-free   the same, where a sample ends when the model ends it
separate-default          separate-free with vLLM's own default settings; not run unless asked for

GRM Server writes a sample in three parts with budgets of their own, the baseline one text. So that they are compared
on the same work, the samples of `separate` have the lengths that those of `fixed` had, and those of `n=k` their mean;
the `-free` ones are what a user gets, and end early or never. Systems take turns, each in a new process, so that each
round finds empty caches and the same prompts, orders (but the random ones) and seeds.

Closed loop: the most they can do. Open loop: how long requests wait that come by a Poisson process, at shares of what
`separate` can do. OUT.jsonl holds every cell; a run that was stopped goes on there. At the end OUT.md, OUT.json and
OUT.png.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.lib.cells import Cells, Key
from benchmarks.lib.data import Item
from benchmarks.lib.servers import Running, grm_serve, vllm_serve
from benchmarks.lib.workloads import Prompts, Workload, choose, load_pool, parse_workloads
from benchmarks.serving.baseline import Ask, BaselineEngine, baseline_engine
from benchmarks.serving.load_plot import plot
from benchmarks.serving.load_report import report
from benchmarks.serving.load_systems import BASELINES, OURS, Endpoint, closed, opened
from grm_server.engine.bundled import bundled_model
from grm_server.grm.plan import plan_wave_unit, wave_end
from grm_server.settings import EngineSettings, Settings

WARM_UP = Workload(2, 8, 500)
GUESS_SAMPLES_PER_S, GUESS_START_S = 2.0, 40.0
START_ORDER = ("fixed", "decided", "same engine", "default engine")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured, and on what."""

    items: dict[Workload, list[Item]]
    open_items: list[Item]
    warm_up: list[Item]
    prompts: Prompts


def main() -> None:
    args = _parser().parse_args()
    systems = args.systems.split(",")
    if unknown := set(systems) - {*OURS, *BASELINES}:
        raise SystemExit(f"unknown systems: {', '.join(sorted(unknown))}")
    fake = args.engine == "fake"
    if fake:
        systems = [system for system in systems if system in OURS]
    model = "" if fake else str(bundled_model(Settings().cache_dir)) if args.model == "bundled" else args.model
    cells = Cells(args.out.with_suffix(".jsonl"), _settings(args))
    plan = _plan(args, _prompts(model))
    todo = [key for key in _keys(args, systems) if key not in cells]
    print(_estimate(todo, args), flush=True)
    engine = None
    if any(key.system in BASELINES for key in todo):
        engine = baseline_engine(EngineSettings(cpu_kv_cache_gib=args.kv_gib), model)
    for process, keys in _turns(todo):
        began_s = time.perf_counter()
        with _serving(process, args, model, engine, keys[0].round) as running:
            endpoint = Endpoint(running.url, plan.prompts, args.tokens, args.gamma, process)
            asyncio.run(endpoint.warm_up(plan.warm_up, WARM_UP))
            print(f"{process}: started and warm after {time.perf_counter() - began_s:.0f} s", flush=True)
            for key in keys:
                began_s = time.perf_counter()
                conditions = {"at_s": time.time(), "machine_load": os.getloadavg()[0]}
                row = _measure(endpoint, key, plan, cells, args) | conditions
                cells.add(key, row)
                _progress(key, row, time.perf_counter() - began_s)
    found = report(cells, systems, [str(w) for w in plan.items], args.open_workload, args.loads)
    args.out.with_suffix(".md").write_text(found.markdown, "utf-8")
    found.write(args.out.with_suffix(".json"))
    plot(found.rows, args.out.with_suffix(".png"))
    print(found.markdown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of LLMBar or RM-Bench; both")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--engine", choices=("real", "fake"), default="real", help="fake: the machinery, no baseline")
    parser.add_argument("--workloads", default="half", help="n2k8p500,...; `half` (4, balanced) or `all` (8)")
    parser.add_argument("--systems", default="fixed,decided,separate,n=k,separate-free,n=k-free")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=128, help="of a cell: 16 requests of k = 8, 8 of k = 16")
    parser.add_argument("--in-flight", type=int, default=96, help="samples that a closed loop keeps in flight")
    parser.add_argument("--tokens", type=int, default=128, help="budget of principles and critique")
    parser.add_argument("--gamma", type=float, default=0.01, help="`decided`: 0.01 promises 99 %% agreement")
    parser.add_argument("--loads", type=_numbers, default=(0.5, 0.8), help="open loop: shares of what separate can do")
    parser.add_argument("--open-workload", default="n2k8p500")
    parser.add_argument("--open-requests", type=int, default=12, help="of an open-loop cell; 0: no open loop")
    parser.add_argument("--open-rounds", type=int, default=1)
    parser.add_argument("--kv-gib", type=int, default=2)
    parser.add_argument("--fake-sample-s", type=float, default=0.05, help="of the fake engine")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/load"))
    return parser


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(",") if number)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """What must be the same for cells to be compared. Rounds, systems and workloads may be added."""
    names = ("model", "engine", "samples", "in_flight", "tokens", "gamma", "open_requests", "kv_gib")
    return {name: getattr(args, name) for name in names}


def _prompts(model: str) -> Prompts:
    if not model:
        return Prompts(lambda text: len(text.split()) * 4 // 3)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return Prompts(lambda text: len(tokenizer.encode(text)))


def _plan(args: argparse.Namespace, prompts: Prompts) -> Plan:
    pool, taken = load_pool(args.data), set[str]()
    workloads = parse_workloads(args.workloads)
    items = {w: choose(pool, w, max(1, args.samples // w.k), prompts, taken) for w in workloads}
    (of_open,) = parse_workloads(args.open_workload)
    open_items = choose(pool, of_open, args.open_requests, prompts, taken)
    return Plan(items, open_items, choose(pool, WARM_UP, 2, prompts, taken), prompts)


def _keys(args: argparse.Namespace, systems: list[str]) -> Iterator[Key]:
    for number in range(args.rounds):
        for system in systems:
            for workload in parse_workloads(args.workloads):
                yield Key(system, str(workload), 0.0, number)
    if "separate" in systems or args.engine == "fake":
        for number in range(args.open_rounds if args.open_requests else 0):
            for system in systems:
                if not system.startswith(("n=k-", "separate-")):
                    yield from (Key(system, args.open_workload, load, number) for load in args.loads)


def _turns(todo: list[Key]) -> Iterator[tuple[str, list[Key]]]:
    """Processes and what to measure in each: the closed loops first, another process first in each round.

    `fixed` comes before the baselines in the first round, which are made as long as it was. Each load of the open loop
    has processes of its own: it asks what the other loads ask, and must not find it in the prefix cache.
    """
    for load, number in sorted({(key.load, key.round) for key in todo}):
        turn = number % len(START_ORDER)
        for process in (*START_ORDER[turn:], *START_ORDER[:turn]):
            keys = [k for k in todo if (k.load, k.round, _process(k.system)) == (load, number, process)]
            if keys:
                yield process, keys


def _process(system: str) -> str:
    if system in OURS:
        return system
    return "default engine" if system.endswith("-default") else "same engine"


@contextmanager
def _serving(
    process: str, args: argparse.Namespace, model: str, engine: BaselineEngine | None, number: int
) -> Iterator[Running]:
    if process in OURS:
        # What one round teaches must not help another.
        priors = args.out.parent / f"priors-{process}-{number}.json"
        priors.unlink(missing_ok=True)
        settings = {
            "engine.cpu_kv_cache_gib": args.kv_gib,
            "stopping.priors": priors,
            "engine.kind": "fake" if args.engine == "fake" else "vllm",
            "engine.fake_sample_s": args.fake_sample_s,
        }
        overrides = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
        with grm_serve("--model", args.model, "--set", "log_level=WARNING", *overrides) as running:
            yield running
    else:
        assert engine is not None
        same = process == "same engine"
        flags = engine.same_flags if same else engine.default_flags
        with vllm_serve(flags, engine.same_environment if same else engine.default_environment) as running:
            yield running


def _measure(endpoint: Endpoint, key: Key, plan: Plan, cells: Cells, args: argparse.Namespace) -> dict[str, Any]:
    (workload,) = parse_workloads(key.workload)
    ask = Ask(workload.k, 0.5, args.tokens + 6 * workload.n + 2)
    if key.system in ("separate", "n=k"):
        like = cells.of("fixed", key.workload)
        if not like:
            raise SystemExit(f"{key.system} is made as long as `fixed`, which is to be measured first")
        # Dealt out anew: in its own order the samples of a request are as alike as those of one prompt are.
        lengths = random.Random(key.round).sample(like[0]["lengths"], len(like[0]["lengths"]))
        ask = Ask(workload.k, 0.5, 0, tuple(lengths))
    if not key.load:
        # Of a request that is judged in waves only the first is there at once.
        wave = (
            wave_end(0, workload.k, plan_wave_unit(workload.n, 8, exchangeable=False))
            if key.system == "decided"
            else workload.k
        )
        in_flight = max(1, args.in_flight // wave)
        return closed(endpoint, key.system, plan.items[workload], ask, in_flight, seed=key.round)
    like = cells.of("separate" if args.engine == "real" else "fixed", key.workload)
    if not like:
        raise SystemExit(f"the open loop needs {key.workload} among the --workloads")
    rate = key.load * sum(row["requests_per_s"] for row in like) / len(like)
    return opened(endpoint, key.system, plan.open_items, ask, rate, seed=key.round)


def _estimate(todo: list[Key], args: argparse.Namespace) -> str:
    closed_samples = sum(args.samples for key in todo if not key.load)
    open_samples = sum(args.open_requests * parse_workloads(key.workload)[0].k / key.load for key in todo if key.load)
    starts = sum(1 for _ in _turns(todo))
    seconds = (closed_samples + open_samples) / GUESS_SAMPLES_PER_S + starts * GUESS_START_S
    return f"{len(todo)} cells, {starts} starts: about {seconds / 60:.0f} min at {GUESS_SAMPLES_PER_S:g} samples/s"


def _progress(key: Key, row: dict[str, Any], seconds: float) -> None:
    load = f" load {key.load:g}" if key.load else ""
    print(
        f"round {key.round + 1} {key.system:16} {key.workload:10}{load}  {seconds:5.1f} s  "
        f"{row['samples_per_s']:6.2f} samples/s  {row['tokens_per_s']:6.0f} tokens/s  p50 {row['p50']:.1f} s  "
        f"cached {row['cached_share']:.2f}",
        flush=True,
    )


if __name__ == "__main__":
    main()
