"""Critiques of real pairs by real judges, from a local copy of the public results of LLMBar.

LLMBar     https://github.com/princeton-nlp/LLMBar     **/evaluators/JUDGE/MODE/result.json

Six judges gave a verdict with a critique on every pair in both orders (CoT); four of them also did so in the first
round of a debate (Swap_CoT). Here each of these verdicts is a sample of an item, with scores one point apart.
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
"""The scores that stand for a verdict. Rules for two responses use differences only, so only their distance matters."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """A judge's critique of a pair, and its verdict."""

    id: str
    judge: str
    order: tuple[int, int]
    """`order[p]`: index of the response shown at position p."""
    critique: str
    winner: int
    """Index of the response that the judge prefers."""
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
        """Hash of the query. Items that share it are always in the same fold."""
        return _digest(self.query)

    @property
    def scores(self) -> Floats:
        """(k, 2)"""
        winners = np.array([sample.winner for sample in self.samples])
        scores: Floats = np.where(winners[:, None] == np.arange(2), float(WINS), float(LOSES))
        return scores

    def row(self, line: int) -> dict[str, Any]:
        """The item as a row of `grm collect` (docs/data-loop.md), to train or query a meta RM. Sample ids are kept."""
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

    no_verdict   no verdict could be parsed
    contradicted the text concludes for the other response: PaLM2's texts in CoT equal those in Swap_CoT word for word,
                 but its verdicts do not
    no_critique  `Metrics_Reference`: the text names the better response only, so a meta RM has nothing to read
    debate       later rounds: their judge has read other critiques, and they exist only if two judges disagree
    repeated     the same text by the same judge for the same order as an earlier sample

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
            for verdict in _verdicts(row, f"{item}/{judge}/{mode}", judge):
                if isinstance(verdict, str):
                    left_out[verdict] += 1
                elif any(_same_text(verdict, other) for other in earlier):
                    left_out["repeated"] += 1
                else:
                    earlier.append(verdict)
    items = [_item(rows[item], item.partition("/")[0], samples) for item, samples in by_item.items() if samples]
    if not items:
        raise FileNotFoundError(f"no critiques under {path}; see studies/meta_rm/transcripts.py for where to get them")
    return items, dict(left_out)


def _same_text(one: Transcript, other: Transcript) -> bool:
    return (one.judge, one.order, one.critique) == (other.judge, other.order, other.critique)


def _item(row: dict[str, Any], source: str, samples: list[Transcript]) -> Item:
    # `meta_top` prefers earlier samples among equals, and files are sorted by judge: shuffle by a hash.
    shuffled = tuple(sorted(samples, key=lambda sample: _digest(sample.id)))
    return Item(row["input"], (row["output_1"], row["output_2"]), int(row["label"]) - 1, source, shuffled)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _verdicts(row: dict[str, Any], name: str, judge: str) -> Iterator[Transcript | str]:
    """The samples of a row; for each verdict that is left out, the reason."""
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
                # A winner is a response, not a position: LLMBar's files have already undone the swap.
                winner = int(verdicts[swap]["winner"]) - 1
                concluded = [order["ab".index(letter)] for letter in _CONCLUSION.findall(critique)]
                if concluded and concluded[-1] != winner:
                    yield "contradicted"
                else:
                    yield Transcript(
                        f"{name}/{order[0]}", judge, order, critique, winner, winner == int(row["label"]) - 1
                    )
