"""Soak test: half an hour or more of mixed traffic. Does the server leak memory or requests?

    python -m benchmarks.robustness.soak --data PATH/TO/LLMBar --minutes 30
    python -m benchmarks.robustness.soak --data PATH/TO/LLMBar --minutes 10 --engine fake --lanes 24

Each lane sends one random request after another: all sizes, streams, clients that disconnect, deadlines, the trainers'
routes, errors (soak_kinds.py). The memory of the server's process and of the engine's is read every second. The
server's caches get small limits, so they are full when the warm-up ends. After the load stops, every table of requests
must become empty: the gauges of /metrics that TABLES matches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from scipy.stats import t

from benchmarks.lib.arrivals import percentiles
from benchmarks.lib.data import load_items
from benchmarks.lib.servers import RunningServer, grm_serve, scrape
from benchmarks.robustness.soak_kinds import KINDS, Lane
from benchmarks.robustness.soak_plot import plot
from grm_server.engine.vllm.launch import TRIM_S
from grm_server.grm.types import Floats

MAX_CHARS = 1200
BINS = 20
FLAT_SHARE = 0.02
TABLES = re.compile(
    r"grm_(waiting|running)_(requests|samples|prompt_tokens)|grm_\w+_(in_flight|open|waiting|running|queued|pending)"
    r"|vllm:num_requests_(running|waiting)"
)
SMALL_LIMITS = {"judgements.max_mib": 4, "judgements.ttl_s": 60, "grouping.ttl_s": 60, "grouping.max_judged": 1000}


@dataclass(frozen=True, slots=True)
class Growth:
    """Growth of memory in a part of the run."""

    mib: float
    """Last minus first value of the fitted line."""
    error_mib: float
    """Half-width of the 95 % interval of `mib`."""
    share: float
    """`mib` over the first value of the line."""

    @property
    def flat(self) -> bool:
        """No significant growth, or less than FLAT_SHARE."""
        return self.mib - self.error_mib <= 0 or self.share < FLAT_SHARE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of LLMBar (see benchmarks/lib/data.py)")
    parser.add_argument("--engine", choices=("real", "fake"), default="real")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--warm-share", type=float, default=0.25, help="share of the run that counts as warm-up")
    parser.add_argument("--lanes", type=int, default=6, help="concurrent clients")
    parser.add_argument("--tokens", type=int, default=32, help="token budget of principles and critique")
    parser.add_argument("--quiet-s", type=float, default=90, help="time limit for the tables to become empty")
    parser.add_argument("--fake-sample-s", type=float, default=0.02, help="seconds per sample of the fake engine")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/soak"))
    parser.add_argument("serve", nargs="*", help="after --: more arguments for `grm serve`")
    args = parser.parse_args()
    settings: dict[str, Any] = {**SMALL_LIMITS, "log_level": "ERROR", "engine.cpu_kv_cache_gib": 2}
    if args.engine == "fake":
        settings |= {"engine.kind": "fake", "engine.fake_sample_s": args.fake_sample_s}
    overrides = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    with grm_serve("--model", args.model, *overrides, *args.serve) as server:
        report = asyncio.run(soak(server, args))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    plot(report, args.out.with_suffix(".png"))
    problems = report["problems"]
    print(json.dumps({name: value for name, value in report.items() if name != "series"}, indent=2))
    print(*(problems or ["memory is flat, every table is empty, every request ended as allowed"]), sep="\n")
    raise SystemExit(bool(problems))


async def soak(server: RunningServer, args: argparse.Namespace) -> dict[str, Any]:
    seconds = args.minutes * 60
    series: list[dict[str, float]] = []
    items = load_items(args.data, 200, max_chars=MAX_CHARS)
    began_s = time.monotonic()
    watching = asyncio.create_task(_watch(server, began_s, series))
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    ends: Counter[str] = Counter()
    took_s: defaultdict[str, list[float]] = defaultdict(list)
    async with httpx.AsyncClient(base_url=server.url, timeout=600, limits=limits, trust_env=False) as client:

        async def run_lane(number: int) -> None:
            lane = Lane(client, items, random.Random(number), args.tokens)
            while time.monotonic() < began_s + seconds:
                kind = lane.rng.choices(KINDS, [each.weight for each in KINDS])[0]
                sent_s = time.monotonic()
                end = await lane.send(kind)
                ends[f"{kind.name}: {end}"] += 1
                took_s[kind.name].append(time.monotonic() - sent_s)

        async with asyncio.TaskGroup() as lanes:
            for number in range(args.lanes):
                lanes.create_task(run_lane(number))
    loaded_s = time.monotonic() - began_s
    leftovers = await _wait_until_empty(server.url, args.quiet_s)
    await asyncio.sleep(5)
    watching.cancel()
    growths = memory_growth(series, args.warm_share * loaded_s, loaded_s)
    return {
        "minutes": args.minutes,
        "engine": args.engine,
        "requests": sum(ends.values()),
        "ends": dict(sorted(ends.items())),
        "seconds": {name: percentiles(values) for name, values in sorted(took_s.items())},
        "growth": {
            name: {"mib": g.mib, "error_mib": g.error_mib, "share": g.share, "flat": g.flat}
            for name, g in growths.items()
        },
        "tables_left": leftovers,
        "problems": _problems(growths, leftovers, ends),
        "warm_s": args.warm_share * loaded_s,
        "loaded_s": loaded_s,
        "series": series,
    }


def _problems(growths: dict[str, Growth], leftovers: dict[str, float], ends: Counter[str]) -> list[str]:
    return [
        *(
            f"{name} grew by {g.mib:.1f} +- {g.error_mib:.1f} MiB ({g.share:.1%})"
            for name, g in growths.items()
            if not g.flat
        ),
        *(f"{name} is {value:g} after the load, not 0" for name, value in leftovers.items()),
        *(f"{count} x {end}" for end, count in ends.items() if "UNEXPECTED" in end),
    ]


async def _watch(server: RunningServer, began_s: float, series: list[dict[str, float]]) -> None:
    """Append a row every second: memory of the server and of its child processes, and the server's open files."""
    process = psutil.Process(server.pid)
    while True:
        children = process.children(recursive=True)
        row = {
            "at_s": time.monotonic() - began_s,
            "server_mib": process.memory_info().rss / 2**20,
            "engine_mib": sum(_rss(child) for child in children) / 2**20,
            "files": float(process.num_fds()),
            "threads": float(process.num_threads()),
        }
        series.append(row)
        await asyncio.sleep(1)


def _rss(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


async def _wait_until_empty(url: str, within_s: float) -> dict[str, float]:
    """Wait at most `within_s` until all tables are empty; those that are not, with their values."""
    deadline_s = time.monotonic() + within_s
    while True:
        metrics = await asyncio.to_thread(scrape, url)
        leftovers = {name: value for name, value in metrics.items() if TABLES.fullmatch(name) and value}
        if not leftovers or time.monotonic() > deadline_s:
            return leftovers
        await asyncio.sleep(1)


def memory_growth(series: list[dict[str, float]], warm_s: float, loaded_s: float) -> dict[str, Growth]:
    """The growth of each value that must be flat."""
    report = {"server_mib": growth(series, "server_mib", warm_s, loaded_s)}
    if any(row["engine_mib"] for row in series):
        bins = min(BINS, int((loaded_s - warm_s) / TRIM_S))
        report["engine_in_use_mib"] = growth(series, "engine_mib", warm_s, loaded_s, least=True, bins=bins)
        report["engine_mib"] = growth(series, "engine_mib", loaded_s / 2, loaded_s)
    return report


def growth(
    series: list[dict[str, float]], name: str, start_s: float, end_s: float, *, least: bool = False, bins: int = BINS
) -> Growth:
    """Growth of `name` between two times: the slope of a line through the medians of bins. Bins, because consecutive
    seconds are not independent; medians, because a short peak is not growth. least: through the minima of the bins."""
    rows = [(row["at_s"], row[name]) for row in series if start_s <= row["at_s"] <= end_s]
    if len(rows) < 2 * bins or bins < 3:
        return Growth(0.0, float("inf"), 0.0)
    at, values = np.array(rows).T
    parts = np.array_split(np.arange(len(rows)), bins)
    x = np.array([at[part].mean() for part in parts])
    y: Floats = np.array([values[part].min() if least else np.median(values[part]) for part in parts])
    slope, start = np.polyfit(x - x[0], y, 1)
    rest = y - (start + slope * (x - x[0]))
    error = np.sqrt((rest**2).sum() / (bins - 2) / ((x - x.mean()) ** 2).sum())
    span = x[-1] - x[0]
    return Growth(float(slope * span), float(t.ppf(0.975, bins - 2) * error * span), float(slope * span / start))


if __name__ == "__main__":
    main()
