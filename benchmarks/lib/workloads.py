"""What the load benchmarks ask: n responses, k samples, prompts of a length, from real data."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.lib.data import Item, load_items
from grm_server.app.templates import judge_template
from grm_server.grm.prompts import JudgeTemplate, sanitized
from grm_server.grm.types import Message, Order, Task

TEMPERATURE = 0.5
TEMPLATE = Path(__file__).parents[2] / "server" / "grm_server" / "grm" / "templates" / "judge.txt"
TOLERANCE = 0.15
"""Prompts are as long as the workload says, or up to so much longer or shorter."""


@dataclass(frozen=True, slots=True)
class Workload:
    n: int
    k: int
    prompt_tokens: int

    def __str__(self) -> str:
        return f"n{self.n}k{self.k}p{self.prompt_tokens}"


ALL = tuple(Workload(*each) for each in product((2, 4), (8, 16), (500, 1500)))
HALF = tuple(w for w in ALL if ((w.n == 4) + (w.k == 16) + (w.prompt_tokens == 1500)) % 2 == 0)
"""Four of the eight, in which each level, and each pair of levels of two factors, is as frequent as the other."""


def parse_workloads(text: str) -> tuple[Workload, ...]:
    """`half`, `all`, or names with commas between them. Raises ValueError."""
    if text in ("half", "all"):
        return HALF if text == "half" else ALL
    found = [re.fullmatch(r"n(\d+)k(\d+)p(\d+)", name) for name in text.split(",")]
    if None in found:
        raise ValueError(f"{text!r}: write workloads as n2k8p500,n4k16p1500, or `half` or `all`")
    return tuple(Workload(*map(int, match.groups())) for match in found if match)


class Prompts:
    """The prompt that the server shows its judge, as text: the baseline asks the same."""

    def __init__(self, count_tokens: Callable[[str], int]) -> None:
        self._template: JudgeTemplate = judge_template(None)
        self._count_tokens = count_tokens

    def render(self, item: Item, order: Order) -> str:
        return self._template.render(
            sanitized(Task((Message("user", item.query),), item.responses), self._template), order
        )

    def tokens(self, item: Item) -> int:
        return self._count_tokens(self.render(item, tuple(range(len(item.responses)))))


def load_pool(paths: Iterable[Path], seed: int = 0) -> list[Item]:
    """All items of the folders, and of those with four responses a pair as well; in random order."""
    items = [item for path in paths for item in load_items(path, 10**6, seed)]
    pool = [*items, *(_pair(item) for item in items if len(item.responses) > 2)]
    random.Random(seed).shuffle(pool)
    return pool


def _pair(item: Item) -> Item:
    """A better response and another one."""
    best = item.best[0]
    other = next(i for i in range(len(item.responses)) if i not in item.best)
    kept = sorted((best, other))
    return Item(item.query, tuple(item.responses[i] for i in kept), (kept.index(best),), item.source)


def choose(pool: list[Item], workload: Workload, count: int, prompts: Prompts, taken: set[str]) -> list[Item]:
    """`count` items of the workload's kind whose queries are not in `taken`, to which theirs are added: what one
    workload leaves in a prefix cache must not help another. Raises ValueError if there are not so many."""
    chosen: list[Item] = []
    for item in pool:
        if len(chosen) == count:
            break
        if len(item.responses) != workload.n or item.query in taken:
            continue
        if abs(prompts.tokens(item) / workload.prompt_tokens - 1) <= TOLERANCE:
            chosen.append(item)
            taken.add(item.query)
    if len(chosen) < count:
        raise ValueError(f"{workload}: the data has {len(chosen)} such items, {count} are needed; add --data folders")
    return chosen
