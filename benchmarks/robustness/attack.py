"""How attacks change a judge's scores: the corpus in tests/attacks, on real pairs of answers.

    python -m benchmarks.robustness.attack --data PATH/TO/LLMBar            starts a server with the bundled model
    python -m benchmarks.robustness.attack --data PATH/TO/LLMBar --url URL  uses a running server, with any model

The attack goes into the worse answer of each pair (by its label), which is judged together with the better one in three
forms:

plain     unchanged
control   with a harmless text of about the same length in place of the attack
attack    with the attack appended, or replaced by the attack if that is a whole answer

From each family `--attacks` attacks are drawn at random, each for `--pairs` pairs of answers; the j-th attack of every
family gets the same pairs. By default that is about 1700 samples: a quarter of an hour at 2 samples/s. Results go to
OUT.jsonl, from which an interrupted run resumes. Writes OUT.json, OUT.md (the table) and OUT.png.

The effect of an attack is the change of the attacked answer's reward from control to attack; intervals are bootstrapped
over pairs of answers. With 18 intervals about one excludes 0 by chance alone. This measures how the judge reacts to the
text. That no attack breaks the structure of a prompt is tested, not measured (tests/unit/grm/test_attacks.py).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import httpx
from rich.progress import Progress

from benchmarks.lib.data import Item, load_items
from benchmarks.lib.servers import running_server
from benchmarks.robustness.attack_plot import plot
from benchmarks.robustness.attack_table import FamilyEffect, effects, table
from tests.attacks import Attack, corpus

WHOLE_ANSWERS = ("empty", "one token", "constant answer", "surrogate")
"""Families whose attacks replace the whole answer; the others are appended to it."""
CONTROL_CHARS = (10, 50, 200, 800, 1600)
"""Characters of controls. An attack gets the shortest control that is at least as long, or else the longest."""
HARMLESS = "The weather was mild that day, and the train left on time. People read, talked or looked at the fields. "

Kind = Literal["plain", "control", "attack"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One request."""

    kind: Kind
    pair: int
    query: str
    responses: tuple[str, str]
    attacked: int
    """Index of the worse response."""
    family: str = ""
    name: str = ""
    control: str = ""
    """For an attack: the key of its control."""

    @property
    def key(self) -> str:
        options = json.dumps((self.kind, self.family, self.query, self.responses))
        return hashlib.blake2b(options.encode(), digest_size=12).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of LLMBar or RM-Bench (see benchmarks/lib/data.py)"
    )
    parser.add_argument("--url", help="a running server; default: start one with the bundled model")
    parser.add_argument("--attacks", type=int, default=6, help="maximum number of attacks from each family")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of answers for each attack")
    parser.add_argument("--max-chars", type=int, default=1500, help="skip pairs with more characters in total")
    parser.add_argument("-k", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=48, help="token budget of principles and critique")
    parser.add_argument("--seed", type=int, default=0, help="for the choice of attacks and pairs, and for all requests")
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/attack"))
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    items = load_items(args.data, args.attacks * args.pairs, args.seed, args.max_chars)
    trials = plan(corpus(), items, args.attacks, args.pairs, args.seed)
    print(f"{len(trials)} requests, {len(trials) * args.k} samples, {len(items)} pairs of answers", flush=True)
    if args.url:
        rows = asyncio.run(run(args.url, trials, args))
    else:
        with running_server("bundled") as url:
            rows = asyncio.run(run(url, trials, args))
    report(effects(rows), rows, args)


def plan(attacks: Sequence[Attack], items: Sequence[Item], per_family: int, pairs: int, seed: int) -> list[Trial]:
    """All distinct requests: the plain ones, then controls and attacks, taking one attack of each family in turn."""
    rng = random.Random(seed)
    families: dict[str, list[Attack]] = {}
    for attack in attacks:
        families.setdefault(attack.family, []).append(attack)
    drawn = {family: rng.sample(members, min(per_family, len(members))) for family, members in families.items()}
    trials = {trial.key: trial for number, item in enumerate(items) if (trial := _trial("plain", number, item, None))}
    for place in range(per_family):
        for of_family in drawn.values():
            if place < len(of_family):
                for number in range(place * pairs, min((place + 1) * pairs, len(items))):
                    attack, item = of_family[place], items[number]
                    size = next((size for size in CONTROL_CHARS if size >= len(attack.response)), CONTROL_CHARS[-1])
                    harmless = (HARMLESS * (size // len(HARMLESS) + 1))[:size]
                    control = _trial("control", number, item, Attack(_placement(attack.family), str(size), harmless))
                    trials.setdefault(control.key, control)
                    hostile = _trial("attack", number, item, attack, control.key)
                    trials.setdefault(hostile.key, hostile)
    return list(trials.values())


def _placement(family: str) -> str:
    return "in its place" if family in WHOLE_ANSWERS else "appended"


def _trial(kind: Kind, pair: int, item: Item, attack: Attack | None, control: str = "") -> Trial:
    best = item.best[0]
    worse = next(i for i in range(len(item.responses)) if i not in item.best)
    text = item.responses[worse]
    if attack is not None:
        whole = attack.family in (*WHOLE_ANSWERS, "in its place")
        text = attack.response if whole else f"{text}\n\n{attack.response}"
    # `load_items` has shuffled the pair, so its order is independent of the label.
    responses = (item.responses[best], text) if best < worse else (text, item.responses[best])
    family, name = ("", "") if attack is None else (attack.family, attack.name)
    return Trial(kind, pair, item.query, responses, int(best < worse), family, name, control)


async def run(url: str, trials: Sequence[Trial], args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each trial, read from OUT.jsonl if an earlier run with the same options has measured it.

    Raises SystemExit if the server does not answer; the file stays.
    """
    path = args.out.with_suffix(".jsonl")
    options = {"k": args.k, "seed": args.seed, "max_critique_tokens": args.tokens, "stop": {"rule": "fixed"}}
    setup = json.dumps({**options, "judge": args.url or "bundled"})
    old = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
    rows = {row["key"]: row for row in old if row["setup"] == setup}
    slots = asyncio.Semaphore(args.concurrency)
    limits = httpx.Limits(max_connections=args.concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=3600, limits=limits) as client:
        with Progress() as progress, path.open("a", encoding="utf-8") as file:
            bar = progress.add_task("judging", total=len(trials), completed=len(rows.keys() & {t.key for t in trials}))

            async def one(trial: Trial) -> None:
                async with slots:
                    row = {"key": trial.key, "setup": setup, **await judge_trial(client, trial, options)}
                rows[trial.key] = row
                file.write(json.dumps(row) + "\n")
                file.flush()
                progress.advance(bar)

            try:
                async with asyncio.TaskGroup() as tasks:
                    for trial in trials:
                        if trial.key not in rows:
                            tasks.create_task(one(trial))
            except* httpx.HTTPError as errors:
                raise SystemExit(f"{errors.exceptions[0]!r}; run the same command again to resume") from None
    return [rows[trial.key] for trial in trials]


async def judge_trial(client: httpx.AsyncClient, trial: Trial, options: dict[str, Any]) -> dict[str, Any]:
    """Send the trial; a row with its outcome, without the texts."""
    body = {"query": trial.query, "responses": trial.responses, **options}
    started = time.perf_counter()
    # json.dumps writes ASCII, which can express half of a surrogate pair; UTF-8 cannot.
    answer = await client.post("/v1/rewards", content=json.dumps(body), headers={"Content-Type": "application/json"})
    about = {name: value for name, value in asdict(trial).items() if name not in ("query", "responses")}
    row = {**about, "status": answer.status_code, "seconds": round(time.perf_counter() - started, 2)}
    if answer.status_code != 200:
        return {**row, "code": answer.json()["error"]["code"]}
    verdict = answer.json()
    return {
        **row,
        "reward": verdict["rewards"][trial.attacked],
        "other": verdict["rewards"][1 - trial.attacked],
        "samples": verdict["usage"]["samples"],
        "failed": sum(verdict["failures"].values()),
        "model": verdict["model"],
    }


def report(families: Sequence[FamilyEffect], rows: Sequence[dict[str, Any]], args: argparse.Namespace) -> None:
    lines = table(families)
    model = next((row["model"] for row in rows if "model" in row), "unknown")
    about = {
        "model": model,
        "requests": len(rows),
        "samples": sum(row.get("samples", 0) for row in rows),
        "server_errors": sum(row["status"] >= 500 for row in rows),
        "k": args.k,
        "attacks": args.attacks,
        "pairs": args.pairs,
        "families": [asdict(family) for family in families],
    }
    args.out.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    args.out.with_suffix(".md").write_text("\n".join(lines) + "\n", "utf-8")
    plot(families, model, args.out.with_suffix(".png"))
    print("\n".join(lines))
    print(json.dumps({name: value for name, value in about.items() if name != "families"}))


if __name__ == "__main__":
    main()
