"""The effect of drawing principles once per query: cost, ties, accuracy, and how often another response wins.

    python -m benchmarks.serving.principles --data PATH/TO/RM-Bench [--queries 6] [--out DIR]

Each prompt of RM-Bench gives three groups, each of a chosen and a rejected response of the same style. All groups are
judged at once, three times, each time by a fresh server: with principles per sample, with principles per query, and
again with principles per sample under another seed, which shows how much two equal runs differ.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.lib.plot_style import styled
from benchmarks.lib.servers import running_server
from grm_client import AsyncGRMClient, Rewards

BLUE, ORANGE = "#0072b2", "#d55e00"


@dataclass(frozen=True, slots=True)
class Group:
    query: str
    responses: tuple[str, str]
    best: int
    """Index of the response that the label prefers."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to judge all groups."""

    name: str
    principles_from: Literal["sample", "query"]
    seed: int


ARMS = (Arm("own", "sample", 0), Arm("once", "query", 0), Arm("own, again", "sample", 1))


@dataclass(frozen=True, slots=True)
class Result:
    """Results of an arm. Tokens are per reward."""

    seconds: float
    completion_tokens: float
    """Includes `principle_tokens`."""
    principle_tokens: float
    """Tokens of principles drawn for queries."""
    computed_tokens: float
    """Prompt tokens that missed the prefix cache."""
    tie_rate: float
    accuracy: float
    """A tie counts half."""
    fell_back: int
    """Groups that fell back to per-sample principles."""
    margins: tuple[float, ...]
    """(groups,): reward of the better response minus that of the other."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Between two arms."""

    others_win: float
    """Share of groups in which another response wins, or only one arm has a tie."""
    margin: float
    """Mean absolute difference of the margins, in points."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of RM-Bench (see benchmarks/lib/data.py)")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--queries", type=int, default=6, help="number of queries; each gives three groups")
    parser.add_argument("-k", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=96, help="token budget of principles and critique")
    parser.add_argument("--max-chars", type=int, default=2500, help="skip queries with more characters in total")
    parser.add_argument("--out", type=Path, help="folder for principles.json and principles.png")
    args = parser.parse_args()
    # The last query warms up the server.
    groups = load_groups(args.data, args.queries + 1, args.max_chars)
    results = {}
    for arm in ARMS:
        with running_server(args.model) as url:
            asyncio.run(judge(url, groups[-3:-2], arm, args.k, args.tokens))
            seconds, answers = asyncio.run(judge(url, groups[:-3], arm, args.k, args.tokens))
        results[arm.name] = result = summary(groups[:-3], arm, answers, seconds)
        print(f"{arm.name:11}", *(f"{name} {value:.3g}" for name, value in figures(result).items()), flush=True)
    own, once, again = (results[arm.name] for arm in ARMS)
    report = {
        "settings": {name: value for name, value in vars(args).items() if name not in ("data", "out")},
        "groups": len(groups) - 3,
        "longer_is_better": fmean(len(g.responses[g.best]) > len(g.responses[1 - g.best]) for g in groups[:-3]),
        "arms": {name: asdict(result) for name, result in results.items()},
        "time_ratio": once.seconds / fmean((own.seconds, again.seconds)),
        "token_ratio": once.completion_tokens / fmean((own.completion_tokens, again.completion_tokens)),
        "own_to_once": asdict(difference(own, once)),
        "again_to_once": asdict(difference(again, once)),
        "own_to_again": asdict(difference(own, again)),
    }
    print(json.dumps(report))
    if args.out is not None:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "principles.json").write_text(json.dumps(report, indent=1) + "\n")
        plot(results, args.out / "principles.png")


def load_groups(path: Path, queries: int, max_chars: int, seed: int = 0) -> list[Group]:
    """Three consecutive groups for each of `queries` random prompts.

    Raises FileNotFoundError when there are no files.
    """
    rows = [row for file in sorted(path.rglob("*_filtered.json")) for row in json.loads(file.read_text("utf-8"))]
    if not rows:
        raise FileNotFoundError(
            f"no RM-Bench files under {path}; see benchmarks/lib/data.py for where to download them"
        )
    rng = random.Random(seed)
    short = [row for row in rows if len(row["prompt"]) + sum(map(len, row["chosen"] + row["rejected"])) <= max_chars]
    groups = []
    for row in rng.sample(short, min(queries, len(short))):
        for chosen, rejected in zip(row["chosen"], row["rejected"], strict=True):
            best = rng.randrange(2)
            groups.append(Group(row["prompt"], (rejected, chosen) if best else (chosen, rejected), best))
    return groups


async def judge(url: str, groups: Sequence[Group], arm: Arm, k: int, tokens: int) -> tuple[float, list[Rewards]]:
    """Judge all groups at once; seconds, and the answers in order."""
    async with AsyncGRMClient(url, timeout_s=3600) as client:
        started = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            running = [
                tasks.create_task(
                    client.rewards(
                        group.query,
                        group.responses,
                        k=k,
                        seed=arm.seed,
                        max_critique_tokens=tokens,
                        stop={"rule": "fixed"},
                        principles_from=arm.principles_from,
                    )
                )
                for group in groups
            ]
        return time.perf_counter() - started, [task.result() for task in running]


def summary(groups: Sequence[Group], arm: Arm, answers: Sequence[Rewards], seconds: float) -> Result:
    margins = tuple(
        answer.rewards[group.best] - answer.rewards[1 - group.best]
        for group, answer in zip(groups, answers, strict=True)
    )
    rewards, usages = 2 * len(groups), [answer.usage for answer in answers]
    drawn = sum(usage.principle_tokens for usage in usages) / rewards
    return Result(
        seconds=seconds,
        completion_tokens=sum(usage.completion_tokens for usage in usages) / rewards + drawn,
        principle_tokens=drawn,
        computed_tokens=sum(usage.prompt_tokens - usage.cached_tokens for usage in usages) / rewards,
        tie_rate=fmean(margin == 0 for margin in margins),
        accuracy=fmean(0.5 if margin == 0 else margin > 0 for margin in margins),
        fell_back=sum(arm.principles_from == "query" and answer.principles_from == "sample" for answer in answers),
        margins=margins,
    )


def difference(one: Result, other: Result) -> Difference:
    pairs = list(zip(one.margins, other.margins, strict=True))
    return Difference(
        others_win=fmean(((a > 0) - (a < 0)) != ((b > 0) - (b < 0)) for a, b in pairs),
        margin=fmean(abs(a - b) for a, b in pairs),
    )


def figures(result: Result) -> dict[str, Any]:
    return {name: value for name, value in asdict(result).items() if name != "margins"}


def plot(results: dict[str, Result], path: Path) -> None:
    mpl.use("Agg")
    names = list(results)
    with styled():
        figure, (cost, duration, quality) = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained")
        drawn = [result.principle_tokens for result in results.values()]
        samples = [result.completion_tokens - result.principle_tokens for result in results.values()]
        cost.bar(names, samples, color=BLUE, label="samples")
        cost.bar(names, drawn, bottom=samples, color=ORANGE, label="principles for queries")
        cost.set_title("Generated tokens per reward", loc="left")
        cost.set_ylim(0, 1.3 * max(result.completion_tokens for result in results.values()))
        cost.legend(frameon=False, loc="upper right")
        duration.bar(names, [result.seconds for result in results.values()], color=BLUE)
        duration.set_title("Seconds for all groups", loc="left")
        places = range(len(names))
        quality.bar([x - 0.2 for x in places], [r.accuracy for r in results.values()], 0.4, color=BLUE, label="right")
        quality.bar([x + 0.2 for x in places], [r.tie_rate for r in results.values()], 0.4, color=ORANGE, label="ties")
        quality.set_xticks(places, names)
        quality.set_ylim(0, 1)
        quality.set_title("Share of groups", loc="left")
        quality.legend(frameon=False)
        figure.savefig(path, dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main()
