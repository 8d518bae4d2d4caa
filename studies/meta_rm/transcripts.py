"""Real judges' critiques of real pairs, from the public results of LLMBar, at a path that the user gives.

LLMBar     https://github.com/princeton-nlp/LLMBar     **/evaluators/JUDGE/MODE/result.json

Six judges gave a verdict on every pair in both orders, with a critique (CoT), and four of them also as the first round
of a debate (Swap_CoT). These are the samples of an item here: a verdict is a sample with scores one point apart.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grm_server.grm.types import Floats

_CONCLUSION = re.compile(r"Output \((a|b)\) is better")
ORDERS = {"swap = False": (0, 1), "swap = True": (1, 0)}
LOSES, WINS = 5, 6
"""What a verdict is as scores. Rules for two responses see differences only, so that only their distance counts."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a judge said of a pair."""

    id: str
    judge: str
    order: tuple[int, int]
    """`order[p]` is the index of the response shown at position p."""
    critique: str
    winner: int
    """Index of the response it prefers."""
    right: bool


@dataclass(frozen=True, slots=True)
class Item:
    query: str
    responses: tuple[str, str]
    best: int
    """Index of the response that the label prefers."""
    source: str
    samples: tuple[Transcript, ...]

    @property
    def group(self) -> str:
        """Items with the same query share it, and are trained or tested on together."""
        return _digest(self.query)

    @property
    def scores(self) -> Floats:
        """(k, 2)"""
        winners = np.array([sample.winner for sample in self.samples])
        scores: Floats = np.where(winners[:, None] == np.arange(2), float(WINS), float(LOSES))
        return scores

    def row(self, line: int) -> dict[str, Any]:
        """As a row of `grm collect` (docs/data-loop.md): what trains a meta RM, or asks one. Samples keep their id."""
        return {
            "line": line,
            "id": self.source,
            "model": None,
            "query": self.query,
            "responses": self.responses,
            "label": self.best,
            "reference": None,
            "principles": None,
            "task": "",
            "difficulty": None,
            "samples": [self._sample(place) for place in range(len(self.samples))],
            "usage": None,
        }

    def _sample(self, place: int) -> dict[str, Any]:
        sample = self.samples[place]
        return {
            "id": sample.id,
            "index": place,
            "order": sample.order,
            "principles": None,
            "critique": sample.critique,
            "scores": self.scores[place].astype(int).tolist(),
            "right": sample.right,
            "failure": None,
            "hinted": False,
            "finish_reason": None,
            "completion_tokens": 0,
            "seed": None,
        }


def read_items(path: Path) -> tuple[list[Item], dict[str, int]]:
    """Items under `path` with their samples, and how many verdicts are left out, by reason.

    no_verdict   nothing could be parsed
    contradicted the text ends with the other response: PaLM2's texts of CoT are those of Swap_CoT, word for word, and
                 its verdicts are not
    no_critique  `Metrics_Reference`: all that is said is who is better, and there is nothing for a meta RM to read
    debate       later rounds: their judge has read other critiques, and there are such rounds only where two disagree
    repeated     word for word what the same judge said of the same order elsewhere

    Raises FileNotFoundError when there are no samples.
    """
    by_item: dict[str, list[Transcript]] = {}
    rows: dict[str, dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    for file in sorted(path.rglob("result.json")):
        *_, source, _, judge, mode, _ = file.parts
        for number, row in enumerate(json.loads(file.read_text("utf-8"))):
            item = f"{source}/{number}"
            rows[item] = row
            earlier = by_item.setdefault(item, [])
            for read in _verdicts(row, f"{item}/{judge}/{mode}", judge):
                if isinstance(read, str):
                    left_out[read] += 1
                elif any((read.judge, read.order, read.critique) == (s.judge, s.order, s.critique) for s in earlier):
                    left_out["repeated"] += 1
                else:
                    earlier.append(read)
    items = [_item(rows[item], item.partition("/")[0], samples) for item, samples in by_item.items() if samples]
    if not items:
        raise FileNotFoundError(f"no critiques under {path}; see studies/meta_rm/transcripts.py for where they live")
    return items, dict(left_out)


def _item(row: dict[str, Any], source: str, samples: list[Transcript]) -> Item:
    # `meta_top` takes earlier ones first among equals, and files are by judge: in an order that says nothing of it.
    mixed = tuple(sorted(samples, key=lambda sample: _digest(sample.id)))
    return Item(row["input"], (row["output_1"], row["output_2"]), int(row["label"]) - 1, source, mixed)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _verdicts(row: dict[str, Any], name: str, judge: str) -> Iterator[Transcript | str]:
    """The samples of a row, or why one is left out."""
    metrics = any(isinstance(entry, list) for entry in row["results"])
    rounds = [entry for entry in row["results"] if isinstance(entry, dict)]
    for number, verdicts in enumerate(rounds):
        for swap, order in ORDERS.items():
            if metrics:
                yield "no_critique"
            elif number:
                yield "debate"
            elif verdicts[swap]["winner"] not in ("1", "2"):
                yield "no_verdict"
            else:
                critique = verdicts[swap]["completion"][0]
                # Winners are responses, not positions: the set has undone the swap.
                winner = int(verdicts[swap]["winner"]) - 1
                concluded = [order["ab".index(letter)] for letter in _CONCLUSION.findall(critique)]
                if concluded and concluded[-1] != winner:
                    yield "contradicted"
                else:
                    yield Transcript(
                        f"{name}/{order[0]}", judge, order, critique, winner, winner == int(row["label"]) - 1
                    )
