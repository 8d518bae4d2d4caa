"""Many times more requests than the server can answer: what it still answers, and how fast it refuses the rest.

    python -m benchmarks.serving.overload --data PATH/TO/LLMBar --seconds 120

First the peak, in a closed loop. Then for so many seconds a Poisson process at --factor times the peak, each request
with a deadline and nobody trying again. Goodput is what was answered within its deadline; it counts the samples of an
answer, since at a deadline there are the votes so far. Both rates leave out the first seconds, until answers come.
A latency is counted from when the request should have been sent; how late the client itself was is in the result.

Writes OUT.json and OUT.png. `--engine fake` measures what stands around the engine: it writes --fake-slots samples at
once, each --fake-sample-s long.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from benchmarks.lib.arrivals import Job, TimedResult, closed_loop, open_loop, percentiles, poisson, rate_between
from benchmarks.lib.data import Item, load_items
from benchmarks.lib.servers import grm_serve
from benchmarks.serving.overload_plot import plot
from grm_client.transport import request_body

REFUSED_IN_S = 0.05
GOODPUT = 0.9
MAX_CHARS = 1500
ACCEPTED = (200, 504)
CLIENTS = 16
"""httpx looks through all connections of a client for each request."""
GRACE_S = 0.1
"""For an answer's way to the client: the server counts its deadline from a request's arrival to its answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    """0: none came."""
    code: str
    """Of an error; else why no more samples were drawn."""
    samples: int
    retry_after: str | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of LLMBar (see benchmarks/lib/data.py)")
    parser.add_argument("--engine", choices=("real", "fake"), default="real")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--factor", type=float, default=10)
    parser.add_argument("--peak-seconds", type=float, default=180)
    parser.add_argument("--in-flight", type=int, default=16, help="requests of the closed loop that finds the peak")
    parser.add_argument("--deadline-s", type=float, help="default: twice the median latency at the peak, at least 1")
    parser.add_argument("-k", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="budget of principles and critique")
    parser.add_argument("--fake-sample-s", type=float, default=0.25)
    parser.add_argument("--fake-slots", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/overload"))
    parser.add_argument("serve", nargs="*", help="after --: what `grm serve` is started with")
    args = parser.parse_args()
    items = load_items(args.data, 200, max_chars=MAX_CHARS)
    engine_flags = ["--model", args.model, "--set", "engine.cpu_kv_cache_gib=2"]
    if args.engine == "fake":
        fake = {
            "engine.kind": "fake",
            "engine.fake_sample_s": args.fake_sample_s,
            "engine.max_num_seqs": args.fake_slots,
        }
        engine_flags = [part for name, value in fake.items() for part in ("--set", f"{name}={value}")]
    with grm_serve(*engine_flags, "--set", "log_level=ERROR", *args.serve) as server:
        report, timed = asyncio.run(measure(server.url, items, args))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    plot(report, timed, args.out.with_suffix(".png"))
    print(json.dumps(report, indent=2))
    print(*target_lines(report), sep="\n")


async def measure(
    url: str, items: list[Item], args: argparse.Namespace
) -> tuple[dict[str, Any], list[TimedResult[Answer]]]:
    """The peak, then the overload."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_client(url)) for _ in range(CLIENTS)]
        requests = partial(_jobs, clients, items, args)
        await closed_loop(itertools.islice(requests(0, None), 4), 4)
        until_s = time.monotonic() + args.peak_seconds
        jobs = itertools.takewhile(lambda _: time.monotonic() < until_s, requests(10**6, None))
        at_peak = await closed_loop(jobs, args.in_flight)
        median_s = percentiles([each.latency_s for each in at_peak])["p50"]
        peak = {
            "requests_per_s": _rate(at_peak, median_s, args.peak_seconds, samples=False),
            "samples_per_s": _rate(at_peak, median_s, args.peak_seconds, samples=True),
            "refused": sum(each.result.status != 200 for each in at_peak),
            **percentiles([each.latency_s for each in at_peak]),
        }
        deadline_s = args.deadline_s or max(1.0, 2 * median_s)
        rate = args.factor * peak["requests_per_s"]
        print(
            f"peak {peak['samples_per_s']:.1f} samples/s; now {rate:.1f} requests/s for {args.seconds:g} s", flush=True
        )
        at_s = poisson(rate, 1, seconds=args.seconds)
        timed = await open_loop(list(itertools.islice(requests(2 * 10**6, deadline_s), len(at_s))), at_s)
    return {"peak": peak, **summary(timed, peak["samples_per_s"], deadline_s, args.seconds)}, timed


def _client(url: str) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    return httpx.AsyncClient(base_url=url, timeout=3600, limits=limits, trust_env=False)


def _jobs(
    clients: Sequence[httpx.AsyncClient],
    items: list[Item],
    args: argparse.Namespace,
    first: int,
    deadline_s: float | None,
) -> Iterator[Job[Answer]]:
    """Requests without end. Each has a seed of its own: equal ones might be answered together."""
    for number in itertools.count(first):
        item = items[number % len(items)]
        body = request_body(
            item.query,
            item.responses,
            k=args.k,
            seed=number,
            max_critique_tokens=args.tokens,
            stop={"rule": "fixed"},
            deadline_s=deadline_s,
        )
        yield partial(_send, clients[number % len(clients)], body)


async def _send(client: httpx.AsyncClient, body: dict[str, Any]) -> Answer:
    try:
        response = await client.post("/v1/rewards", json=body)
        answer = response.json()
    except (httpx.RequestError, ValueError) as error:
        return Answer(0, type(error).__name__, 0, None)
    if response.status_code == 200:
        return Answer(200, answer["stop_reason"], answer["usage"]["samples"], None)
    return Answer(response.status_code, answer["error"]["code"], 0, response.headers.get("retry-after"))


def _rate(timed: Sequence[TimedResult[Answer]], settle_s: float, end_s: float, *, samples: bool) -> float:
    good = ((each.done_s, each.result.samples if samples else 1.0) for each in timed if each.result.status == 200)
    return rate_between(good, min(settle_s, end_s / 2), end_s)


def summary(timed: Sequence[TimedResult[Answer]], peak: float, deadline_s: float, seconds: float) -> dict[str, Any]:
    """What became of the requests of an overload. peak: samples a second."""
    answered = [each for each in timed if each.result.status == 200]
    good = [each for each in answered if each.latency_s <= deadline_s + GRACE_S]
    accepted = [each for each in timed if each.result.status in ACCEPTED]
    refused = [each for each in timed if each.result.status not in ACCEPTED]
    refused_s = [each.done_s - each.sent_s for each in refused]
    goodput = _rate(good, deadline_s, seconds, samples=True)
    return {
        "deadline_s": deadline_s,
        "seconds": seconds,
        "offered": len(timed),
        "outcomes": dict(Counter(f"{each.result.status} {each.result.code}" for each in timed).most_common()),
        "goodput_samples_per_s": goodput,
        "goodput_share_of_peak": goodput / peak,
        "goodput_requests_per_s": _rate(good, deadline_s, seconds, samples=False),
        "answered": len(answered),
        "answered_late": len(answered) - len(good),
        "accepted_latency_s": percentiles([each.latency_s for each in accepted]),
        "refused": len(refused),
        "refused_after_s": percentiles(refused_s),
        "refused_fast_share": sum(each <= REFUSED_IN_S for each in refused_s) / len(refused) if refused else 1.0,
        "refused_without_retry_after": sum(each.result.retry_after is None for each in refused),
        "retry_after_s": percentiles([float(each.result.retry_after) for each in refused if each.result.retry_after]),
        "client_late_s": percentiles([each.sent_s - each.intended_s for each in timed]),
    }


def target_lines(report: dict[str, Any]) -> list[str]:
    """Each target and whether it is reached."""
    p99_s, deadline_s = report["accepted_latency_s"].get("p99", 0.0), report["deadline_s"]
    refused_s = report["refused_after_s"].get("p99", 0.0)
    checks = (
        (f"goodput {report['goodput_share_of_peak']:.0%} of the peak", report["goodput_share_of_peak"] >= GOODPUT),
        (
            f"p99 of accepted requests {p99_s:.2f} s, deadline {deadline_s:.2f} s and {GRACE_S:g} for the way",
            p99_s <= deadline_s + GRACE_S,
        ),
        (f"p99 of refusals after {refused_s * 1e3:.0f} ms, to be under 50", refused_s <= REFUSED_IN_S),
        (
            f"{report['refused_without_retry_after']} refused without Retry-After",
            not report["refused_without_retry_after"],
        ),
    )
    return [f"{'reached' if reached else 'NOT reached'}: {what}" for what, reached in checks]


if __name__ == "__main__":
    main()
