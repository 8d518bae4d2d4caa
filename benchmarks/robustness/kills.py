"""Kill the engine repeatedly at random moments under load, and count lost and wrong answers and recovery times.

    python -m benchmarks.robustness.kills --data PATH/TO/RM-Bench --kills 20

Starts `grm serve`. Callers that never retry repeat the same requests in a closed loop, first undisturbed, then while
the engine's process gets SIGKILL. With `--stop-every N` every N-th signal is SIGSTOP, which hangs the engine; then also
add `-- --set supervision.stall_s=30` (longer than any engine step on this machine). Every answer is checked: status,
one reward of 1 to 10 for each response, and k samples with scores. Requests are seeded, so each answer can be compared
with its undisturbed one. Samples depend slightly on what else the engine computes in the same step, so even two
undisturbed answers do not agree in all samples; both shares are reported.

A new engine has an empty prefix cache. So requests that no kill hit take as long as undisturbed ones on an empty cache.

Writes OUT.json and OUT.png.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.lib.data import load_items
from benchmarks.lib.servers import RunningServer, grm_serve
from benchmarks.robustness.checked_load import Answer, body, load
from benchmarks.robustness.kills_plot import plot


@dataclass
class Kill:
    """One signal sent to the engine, and when readiness reported it."""

    at_s: float
    kind: str
    red_s: float | None = None
    """When /health/ready first failed."""
    green_s: float | None = None
    """When /health/ready succeeded again."""


def engine_core_pid(server: RunningServer) -> int | None:
    """Process id of vLLM's EngineCore; None while there is no such process."""
    command = ["pgrep", "-P", str(server.pid), "-f", "EngineCore"]
    pids = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return int(pids[0]) if pids else None


async def kill_at_random(server: RunningServer, args: argparse.Namespace, stop: asyncio.Event) -> list[Kill]:
    """Kill the engine at random moments, even while it is starting again. Sets `stop` after the last recovery."""
    rng, kills = random.Random(args.seed), list[Kill]()
    watch = asyncio.create_task(watch_readiness(server.url, kills))
    for number in range(1, args.kills + 1):
        await asyncio.sleep(rng.uniform(*args.gap))
        while (pid := engine_core_pid(server)) is None:
            await asyncio.sleep(0.01)
        stopped = bool(args.stop_every) and number % args.stop_every == 0
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP if stopped else signal.SIGKILL)
            kills.append(Kill(time.monotonic(), "SIGSTOP" if stopped else "SIGKILL"))
            print(f"{number:3} {kills[-1].kind}", flush=True)
    while kills[-1].green_s is None:
        await asyncio.sleep(0.1)
    await asyncio.sleep(args.gap[1] / 2)
    stop.set()
    watch.cancel()
    return kills


async def watch_readiness(url: str, kills: list[Kill]) -> None:
    """Poll readiness, and record for each earlier kill when it turned red and green again."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        while True:
            polled_s = time.monotonic()
            green = (await client.get("/health/ready")).status_code == 200
            for kill in kills:
                if not green and kill.red_s is None and polled_s > kill.at_s:
                    kill.red_s = time.monotonic()
                elif green and kill.red_s is not None and kill.green_s is None:
                    kill.green_s = time.monotonic()
            await asyncio.sleep(0.02)


def equal_samples_share(answers: list[Answer], undisturbed: dict[int, Answer]) -> float | None:
    """Share of samples with the same scores as in the undisturbed answer."""
    pairs = [
        (one, other)
        for answer in answers
        for one, other in zip(answer.scores, undisturbed[answer.item].scores, strict=False)
    ]
    return statistics.fmean(one == other for one, other in pairs) if pairs else None


def spread(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "median": statistics.median(ordered),
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "max": ordered[-1],
    }


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    items = load_items(args.data, args.requests, max_chars=args.max_chars)
    requests = [body(item, seed, args.k, args.tokens) for seed, item in enumerate(items)]
    with (
        tempfile.TemporaryDirectory() as folder,
        grm_serve(
            "--set", f"stopping.priors={folder}/priors.json", *args.serve, log=args.out.with_suffix(".log")
        ) as server,
    ):
        first = await load(server.url, requests, args.callers)
        again = await load(server.url, requests, args.callers)
        began_s, stop = time.monotonic(), asyncio.Event()
        under_load = asyncio.create_task(load(server.url, requests, args.callers, stop))
        kills = await kill_at_random(server, args, stop)
        answers = await under_load
        async with httpx.AsyncClient(base_url=server.url) as client:
            metrics = (await client.get("/metrics")).text
    undisturbed = {answer.item: answer for answer in first}
    hit = [a for a in answers if any(a.sent_s < b.at_s < a.ended_s for b in kills)]
    spared = [a for a in answers if a not in hit]
    problems = [answer.problem for answer in [*first, *again, *answers] if answer.problem]
    red = [kill.red_s - kill.at_s for kill in kills if kill.red_s is not None]
    green = [kill.green_s - kill.at_s for kill in kills if kill.green_s is not None]
    replayed = re.search(r"^grm_samples_replayed_total (\S+)", metrics, re.M)
    return {
        "kills": len(kills),
        "answers": len(answers),
        "hit_by_a_kill": len(hit),
        "lost_or_wrong": len(problems),
        "problems": problems,
        "samples_replayed": int(float(replayed[1])) if replayed else 0,
        "until_red_s": spread(red),
        "until_green_s": spread(green),
        "latency_s": {
            "undisturbed, empty prefix cache": spread([a.ended_s - a.sent_s for a in first]),
            "undisturbed": spread([a.ended_s - a.sent_s for a in again]),
            "hit": spread([a.ended_s - a.sent_s for a in hit]) if hit else None,
            "spared": spread([a.ended_s - a.sent_s for a in spared]) if spared else None,
        },
        "samples_equal": {
            "undisturbed": equal_samples_share(again, undisturbed),
            "hit": equal_samples_share(hit, undisturbed),
            "spared": equal_samples_share(spared, undisturbed),
        },
        "blows": [{name: _since(value, began_s) for name, value in asdict(kill).items()} for kill in kills],
        "timeline": [
            {"sent_s": a.sent_s - began_s, "ended_s": a.ended_s - began_s, "hit": a in hit, "problem": a.problem}
            for a in answers
        ],
        "k": args.k,
        "callers": args.callers,
        "tokens": args.tokens,
    }


def _since(value: Any, began_s: float) -> Any:
    return value - began_s if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of LLMBar or RM-Bench")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stop-every", type=int, default=0, help="every N-th signal is SIGSTOP; 0: always SIGKILL")
    parser.add_argument(
        "--gap", type=float, nargs=2, default=(15, 45), help="minimum and maximum seconds between kills"
    )
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--requests", type=int, default=16, help="number of distinct requests")
    parser.add_argument("-k", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=64, help="token budget of principles and critique")
    parser.add_argument("--max-chars", type=int, default=2000, help="skip items with more characters in total")
    parser.add_argument("--seed", type=int, default=0, help="for the times of the kills")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kills"))
    parser.add_argument("serve", nargs="*", help="after --: more arguments for `grm serve`")
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    run = asyncio.run(measure(args))
    args.out.with_suffix(".json").write_text(json.dumps(run, indent=1))
    plot(run, args.out.with_suffix(".png"))
    print(json.dumps({name: value for name, value in run.items() if name not in ("blows", "timeline")}, indent=1))


if __name__ == "__main__":
    main()
