"""Goodput and refusals when many times more requests arrive than the server can answer.

    python -m benchmarks.serving.overload --data PATH/TO/LLMBar --seconds 120

A closed loop finds the peak throughput. Then a Poisson process sends --factor times the peak for --seconds; each
request has a deadline, and no client retries. Goodput is the rate of samples in answers within their deadline. Samples,
because an answer at its deadline holds only the votes so far. Both rates leave out the first seconds, before answers
arrive. A latency is counted from the time at which the request should have been sent; the result also states how late
the client sent its requests.

Writes OUT.json and OUT.png. `--engine fake` measures the server without a model: the fake engine generates --fake-slots
samples at once, each in --fake-sample-s seconds.
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
"""More than one, because httpx searches all connections of a client on each request."""
GRACE_S = 0.1
"""Allowance for the network: the server's deadline covers only the time from a request's arrival to its answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    """0: no response."""
    code: str
    """The error's code, or the answer's stop_reason."""
    samples: int
    retry_after: str | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of LLMBar (see benchmarks/lib/data.py)")
    parser.add_argument("--engine", choices=("real", "fake"), default="real")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--factor", type=float, default=10, help="offered load over the peak")
    parser.add_argument("--peak-seconds", type=float, default=180)
    parser.add_argument("--in-flight", type=int, default=16, help="requests of the closed loop that finds the peak")
    parser.add_argument("--deadline-s", type=float, help="default: twice the median latency at the peak, at least 1")
    parser.add_argument("-k", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64, help="token budget of principles and critique")
    parser.add_argument("--fake-sample-s", type=float, default=0.25, help="seconds per sample of the fake engine")
    parser.add_argument("--fake-slots", type=int, default=16, help="concurrent samples of the fake engine")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/overload"))
    parser.add_argument("serve", nargs="*", help="after --: more arguments for `grm serve`")
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
    """Measure the peak, then the overload; the report, and the requests of the overload."""
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
    """An endless stream of requests. Each has its own seed, since the server coalesces equal requests."""
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
    """Outcomes and rates of an overload. peak: samples/s."""
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
    """A line for each target: whether it is reached."""
    p99_s, deadline_s = report["accepted_latency_s"].get("p99", 0.0), report["deadline_s"]
    refused_s = report["refused_after_s"].get("p99", 0.0)
    checks = (
        (f"goodput {report['goodput_share_of_peak']:.0%} of the peak", report["goodput_share_of_peak"] >= GOODPUT),
        (
            f"p99 of accepted requests {p99_s:.2f} s; limit {deadline_s:.2f} s (deadline) + {GRACE_S:g} s (network)",
            p99_s <= deadline_s + GRACE_S,
        ),
        (f"p99 of refusals {refused_s * 1e3:.0f} ms; limit {REFUSED_IN_S * 1e3:.0f} ms", refused_s <= REFUSED_IN_S),
        (
            f"{report['refused_without_retry_after']} refusals without Retry-After",
            not report["refused_without_retry_after"],
        ),
    )
    return [f"{'reached' if reached else 'NOT reached'}: {what}" for what, reached in checks]


if __name__ == "__main__":
    main()
