"""Real items to judge, from the public files of LLMBar and RM-Bench, at a path that the user gives.

LLMBar     https://github.com/princeton-nlp/LLMBar            Dataset/**/dataset.json
RM-Bench   https://huggingface.co/datasets/THU-KEG/RM-Bench   *_filtered.json
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """One query with its candidate answers, in an order that says nothing about their quality."""

    query: str
    responses: tuple[str, ...]


def load_items(path: Path, limit: int, seed: int = 0) -> list[Item]:
    """`limit` random items of the files under `path`, responses shuffled, since many sets list the better one first.

    Raises FileNotFoundError when there are none.
    """
    files = [path] if path.is_file() else sorted([*path.rglob("dataset.json"), *path.rglob("*_filtered.json")])
    items = [item for file in files for item in _items(json.loads(file.read_text("utf-8")))]
    if not items:
        raise FileNotFoundError(f"no LLMBar or RM-Bench files under {path}; see benchmarks/data.py for where they live")
    rng = random.Random(seed)
    drawn = rng.sample(items, min(limit, len(items)))
    return [Item(item.query, tuple(rng.sample(item.responses, len(item.responses)))) for item in drawn]


def _items(rows: Any) -> list[Item]:
    """Rows of one file; those of another form are passed over."""
    items = []
    for row in rows if isinstance(rows, list) else ():
        if {"input", "output_1", "output_2"} <= row.keys():
            items.append(Item(row["input"], (row["output_1"], row["output_2"])))
        elif {"prompt", "chosen", "rejected"} <= row.keys():
            items.append(Item(row["prompt"], (*row["chosen"][:2], *row["rejected"][:2])))
    return items
