"""GRM Server against what a user would write without it, on the same model, machine, prompts and engine settings.

    make baseline
    python -m benchmarks.serving.load --data PATH/TO/LLMBar --data PATH/TO/RM-Bench

fixed           GRM Server, all k samples
decided         GRM Server, as many samples as the rule `decided` draws at --gamma
separate        k calls to `vllm serve`, random orders, regex and mean (benchmarks/serving/baseline.py)
n=k             one call with n = k, one fixed order
separate-free, n=k-free   the same, but the model ends its samples
separate-default          separate-free with vLLM's default settings; only run if listed in --systems

GRM Server generates a sample in three segments, each with its own budget; the baseline generates one text. To compare
equal work, the samples of `separate` get the lengths that those of `fixed` had, and those of `n=k` their mean. The
`-free` systems are what a user would get: their samples end early or never. Systems take turns, each in a new process,
so every round starts with empty caches and has the same prompts, seeds and (unless random) orders.

The closed loop measures maximum throughput. The open loop measures latency under Poisson arrivals, at shares of the
throughput of `separate`. OUT.jsonl holds every cell, and an interrupted run resumes from it. Writes OUT.md, OUT.json
and OUT.png at the end.
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
from benchmarks.lib.servers import RunningServer, grm_serve, vllm_serve
from benchmarks.lib.workloads import Prompts, Workload, choose, load_pool, parse_workloads
from benchmarks.serving.baseline import BaselineEngine, SamplingOptions, baseline_engine
from benchmarks.serving.load_plot import plot
from benchmarks.serving.load_report import report
from benchmarks.serving.load_schedule import cell_keys, estimate, schedule
from benchmarks.serving.load_systems import BASELINES, OURS, Endpoint, run_closed_loop, run_open_loop
from grm_server.engine.bundled import bundled_model
from grm_server.grm.plan import layout_of, plan_wave_unit, wave_end
from grm_server.settings import EngineSettings, Settings

WARM_UP = Workload(2, 8, 500)


@dataclass(frozen=True, slots=True)
class Plan:
    """The items of each workload, and how prompts are rendered."""

    items: dict[Workload, list[Item]]
    open_items: list[Item]
    warm_up: list[Item]
    prompts: Prompts


def main() -> None:
    args = _parser().parse_args()
    systems = args.systems.split(",")
    if unknown := set(systems) - {*OURS, *BASELINES}:
        raise SystemExit(f"unknown systems: {', '.join(sorted(unknown))}; see --help")
    fake = args.engine == "fake"
    if fake:
        systems = [system for system in systems if system in OURS]
    model = "" if fake else str(bundled_model(Settings().cache_dir)) if args.model == "bundled" else args.model
    cells = Cells(args.out.with_suffix(".jsonl"), _settings(args))
    plan = _plan(args, _prompts(model))
    todo = [key for key in cell_keys(args, systems) if key not in cells]
    print(estimate(todo, args), flush=True)
    engine = None
    if any(key.system in BASELINES for key in todo):
        engine = baseline_engine(EngineSettings(cpu_kv_cache_gib=args.kv_gib), model)
    for process, keys in schedule(todo):
        began_s = time.perf_counter()
        with _serve(process, args, model, engine, keys[0].round) as running:
            endpoint = Endpoint(running.url, plan.prompts, args.tokens, args.gamma, process)
            asyncio.run(endpoint.warm_up(plan.warm_up, WARM_UP))
            print(f"{process}: started and warmed up after {time.perf_counter() - began_s:.0f} s", flush=True)
            for key in keys:
                began_s = time.perf_counter()
                conditions = {"at_s": time.time(), "machine_load": os.getloadavg()[0]}
                row = _measure(endpoint, key, plan, cells, args) | conditions
                cells.add(key, row)
                _progress(key, row, time.perf_counter() - began_s)
    result = report(cells, systems, [str(w) for w in plan.items], args.open_workload, args.loads)
    args.out.with_suffix(".md").write_text(result.markdown, "utf-8")
    result.write(args.out.with_suffix(".json"))
    plot(result.rows, args.out.with_suffix(".png"))
    print(result.markdown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, action="append", required=True, help="folder of LLMBar or RM-Bench; give both"
    )
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--engine", choices=("real", "fake"), default="real", help="fake: for a dry run; no baseline")
    parser.add_argument("--workloads", default="half", help="n2k8p500,..., or `half` (4, balanced), or `all` (8)")
    parser.add_argument("--systems", default="fixed,decided,separate,n=k,separate-free,n=k-free")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=128, help="samples per cell: 16 requests at k = 8, 8 at k = 16")
    parser.add_argument("--in-flight", type=int, default=96, help="samples in flight in a closed loop")
    parser.add_argument("--tokens", type=int, default=128, help="token budget of principles and critique")
    parser.add_argument("--gamma", type=float, default=0.01, help="level of `decided`: 0.01 means 99 %% agreement")
    parser.add_argument("--loads", type=_numbers, default=(0.5, 0.8), help="open loop: shares of separate's throughput")
    parser.add_argument("--open-workload", default="n2k8p500")
    parser.add_argument("--open-requests", type=int, default=12, help="requests per open-loop cell; 0: no open loop")
    parser.add_argument("--open-rounds", type=int, default=1)
    parser.add_argument("--kv-gib", type=int, default=2, help="KV cache of each engine, GiB")
    parser.add_argument("--fake-sample-s", type=float, default=0.05, help="seconds per sample of the fake engine")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/load"))
    return parser


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(",") if number)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """Settings that must be equal for cells to be comparable. A later run may add rounds, systems and workloads."""
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


@contextmanager
def _serve(
    process: str, args: argparse.Namespace, model: str, engine: BaselineEngine | None, number: int
) -> Iterator[RunningServer]:
    if process in OURS:
        # Priors learned in one round must not help another.
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
    options = SamplingOptions(workload.k, 0.5, args.tokens + 6 * workload.n + 2)
    if key.system in ("separate", "n=k"):
        reference = cells.rounds("fixed", key.workload)
        if not reference:
            raise SystemExit(f"{key.system} takes its sample lengths from `fixed`; measure that first")
        # Shuffle: in their own order, the lengths within a request are correlated.
        lengths = random.Random(key.round).sample(reference[0]["lengths"], len(reference[0]["lengths"]))
        options = SamplingOptions(workload.k, 0.5, 0, tuple(lengths))
    if not key.load:
        # A request that is judged in waves has only one wave in flight.
        wave = (
            wave_end(0, workload.k, plan_wave_unit(workload.n, layout_of(workload.n, 8, None), exchangeable=False))
            if key.system == "decided"
            else workload.k
        )
        in_flight = max(1, args.in_flight // wave)
        return run_closed_loop(endpoint, key.system, plan.items[workload], options, in_flight, seed=key.round)
    reference = cells.rounds("separate" if args.engine == "real" else "fixed", key.workload)
    if not reference:
        raise SystemExit(f"the open loop needs {key.workload} among the --workloads")
    rate = key.load * sum(row["requests_per_s"] for row in reference) / len(reference)
    return run_open_loop(endpoint, key.system, plan.open_items, options, rate, seed=key.round)


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
