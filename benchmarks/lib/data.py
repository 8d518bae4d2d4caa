"""Real items to judge, from a local copy of the public files of LLMBar and RM-Bench.

    python -m benchmarks.lib.data --data PATH/TO/LLMBar -k 32 > requests.jsonl
    grm score requests.jsonl --out samples.jsonl

The first command writes requests for `grm score`, which logs every sample of every item and can be stopped and resumed.
The `id` of a line holds the source of the item and the indices of its better responses.

LLMBar     https://github.com/princeton-nlp/LLMBar            Dataset/**/dataset.json
RM-Bench   https://huggingface.co/datasets/THU-KEG/RM-Bench   *_filtered.json
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Item:
    """One query with its candidate responses, in an order that is independent of their quality."""

    query: str
    responses: tuple[str, ...]
    best: tuple[int, ...]
    """Indices of the responses that the label prefers."""
    source: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of LLMBar or RM-Bench")
    parser.add_argument("--items", type=int, default=200, help="number of items, split evenly over the folders")
    parser.add_argument("--max-chars", type=int, default=10**9, help="skip items with more characters in total")
    parser.add_argument("-k", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48, help="token budget of principles and critique")
    args = parser.parse_args()
    share = -(-args.items // len(args.data))
    for item in (item for path in args.data for item in load_items(path, share, max_chars=args.max_chars)):
        request = {
            "id": {"source": item.source, "best": item.best},
            "query": item.query,
            "responses": item.responses,
            "k": args.k,
            "stop": {"rule": "fixed"},
            "seed": 0,
            "max_critique_tokens": args.tokens,
            "return_samples": True,
        }
        print(json.dumps(request))


def load_items(path: Path, limit: int, seed: int = 0, max_chars: int = 10**9) -> list[Item]:
    """`limit` random items of the files under `path`, with responses shuffled: many sets list the better one first.

    Raises FileNotFoundError when there are none.
    """
    files = [path] if path.is_file() else sorted([*path.rglob("dataset.json"), *path.rglob("*_filtered.json")])
    items = [item for file in files for item in _items(json.loads(file.read_text("utf-8")), path.name)]
    if not items:
        raise FileNotFoundError(
            f"no LLMBar or RM-Bench files under {path}; see benchmarks/lib/data.py for where to download them"
        )
    rng = random.Random(seed)
    short = [item for item in items if len(item.query) + sum(map(len, item.responses)) <= max_chars]
    return [_shuffled(item, rng) for item in rng.sample(short, min(limit, len(short)))]


def _shuffled(item: Item, rng: random.Random) -> Item:
    order = rng.sample(range(len(item.responses)), len(item.responses))
    best = tuple(sorted(order.index(i) for i in item.best))
    return Item(item.query, tuple(item.responses[i] for i in order), best, item.source)


def _items(rows: Any, source: str) -> list[Item]:
    """The items of one file. Rows of any other form are skipped."""
    items = []
    for row in rows if isinstance(rows, list) else ():
        if {"input", "output_1", "output_2", "label"} <= row.keys() and row["label"] in (1, 2):
            items.append(Item(row["input"], (row["output_1"], row["output_2"]), (row["label"] - 1,), source))
        elif {"prompt", "chosen", "rejected"} <= row.keys():
            items.append(Item(row["prompt"], (*row["chosen"][:2], *row["rejected"][:2]), (0, 1), source))
    return items


if __name__ == "__main__":
    main()
