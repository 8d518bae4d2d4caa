"""Labelled pairs for training, from local copies of the public files of hh-rlhf and TruthfulQA.

    python -m benchmarks.lib.labelled --hh-rlhf test.jsonl.gz --truthfulqa finetune_truth.jsonl > labelled.jsonl
    grm collect labelled.jsonl --out trajectories.jsonl -n 4

hh-rlhf      https://huggingface.co/datasets/Anthropic/hh-rlhf   {"chosen", "rejected"}: only the last turn differs
TruthfulQA   https://github.com/sylinrl/TruthfulQA               data/finetune_truth.jsonl: a true or false answer a row

The benchmarks report on other sets.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_TURN = re.compile(r"\n\n(Human|Assistant): ")
_ANSWER = re.compile(r"Q: (?P<question>.*)\nA: (?P<answer>.*)\nTrue:", re.DOTALL)
_ROLES = {"Human": "user", "Assistant": "assistant"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hh-rlhf", type=Path, help="a .jsonl.gz of the set")
    parser.add_argument("--truthfulqa", type=Path, help="finetune_truth.jsonl")
    parser.add_argument("--items", type=int, default=500, help="number of pairs from each set")
    parser.add_argument("--max-chars", type=int, default=1200, help="skip pairs with more characters as JSON")
    parser.add_argument("--tokens", type=int, default=96, help="token budget of principles and critique")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    sets = []
    if args.hh_rlhf:
        with gzip.open(args.hh_rlhf, "rt", encoding="utf-8") as rows:
            sets.append(list(hh_rlhf(rows, rng)))
    if args.truthfulqa:
        with args.truthfulqa.open(encoding="utf-8") as rows:
            sets.append(list(truthfulqa(rows, rng)))
    chosen = []
    for items in sets:
        short = [item for item in items if len(json.dumps(item)) <= args.max_chars]
        chosen += rng.sample(short, min(args.items, len(short)))
    # Shuffle, so the head of the file is a smaller file of the same mix.
    rng.shuffle(chosen)
    for item in chosen:
        print(json.dumps(item | {"max_critique_tokens": args.tokens, "seed": args.seed}))


def hh_rlhf(rows: Iterable[str], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Pairs of dialogues that differ in the last turn only, which is the assistant's."""
    for row in map(json.loads, rows):
        (*before, chosen), (*same, rejected) = _dialogue(row["chosen"]), _dialogue(row["rejected"])
        if before and before == same and chosen["role"] == "assistant" != before[-1]["role"]:
            yield _pair(before, chosen["content"], rejected["content"], rng, "hh-rlhf")


def truthfulqa(rows: Iterable[str], rng: random.Random) -> Iterator[dict[str, Any]]:
    """A true and a false answer of each question that has both."""
    answers: dict[str, dict[bool, list[str]]] = {}
    for row in map(json.loads, rows):
        if match := _ANSWER.fullmatch(row["prompt"]):
            by_truth = answers.setdefault(match["question"], {True: [], False: []})
            by_truth[row["completion"].strip() == "yes"].append(match["answer"])
    for question, by_truth in answers.items():
        true, false = set(by_truth[True]), set(by_truth[False])
        if true - false and false - true:
            chosen, rejected = rng.choice(sorted(true - false)), rng.choice(sorted(false - true))
            yield _pair(question, chosen, rejected, rng, "truthfulqa")


def _pair(query: Any, chosen: str, rejected: str, rng: random.Random, source: str) -> dict[str, Any]:
    label = rng.randrange(2)
    responses = [rejected, chosen] if label else [chosen, rejected]
    return {"query": query, "responses": responses, "label": label, "id": source}


def _dialogue(text: str) -> list[dict[str, str]]:
    _, *parts = _TURN.split(text)
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": _ROLES[speaker], "content": content.strip()} for speaker, content in turns]


if __name__ == "__main__":
    main()
