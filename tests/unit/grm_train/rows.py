"""Made-up rows of `grm collect`."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

from grm_client.data.trajectories import ErrorRow, ItemRow, LabelledSample

Write = Callable[[random.Random, bool], str]
"""A critique, given whether its scores are right."""


def sample(**fields: Any) -> LabelledSample:
    given = {"index": 0, "order": (0, 1), "principles": "Correctness.", "critique": "So.", "scores": (7, 4), "seed": 1}
    rest = {"right": True, "failure": None, "hinted": False, "finish_reason": "stop", "completion_tokens": 9}
    return LabelledSample(**given | rest | fields)


def item(line: int, samples: list[LabelledSample], **fields: Any) -> ItemRow:
    given: dict[str, Any] = {"query": f"Question {line}?", "responses": ["Yes.", "No."], "label": 0, "model": "judge"}
    rest: dict[str, Any] = {"reference": None, "principles": None, "task": "", "difficulty": "mixed", "usage": None}
    return ItemRow(**given | rest | fields, line=line, id=line, samples=samples)


def error(line: int) -> ErrorRow:
    return ErrorRow.model_validate({"line": line, "error": {"code": "invalid_body"}})


def rows(items: int, write: Write, samples: int = 4) -> list[ItemRow]:
    """Half of the samples are right; both kinds appear in both orders."""
    rng = random.Random(1)
    return [
        item(
            line,
            [
                sample(
                    index=index,
                    order=((0, 1), (1, 0))[rng.random() < 0.5],
                    critique=write(rng, right := index % 2 == 0),
                    scores=(7, 4) if right else (4, 7),
                    right=right,
                )
                for index in range(samples)
            ],
            # Equal lengths, so they do not reveal the label.
            responses=["Yes.", "Nay."],
        )
        for line in range(1, items + 1)
    ]


def as_file(written: list[ItemRow]) -> bytes:
    return b"".join(json.dumps(row.model_dump()).encode() + b"\n" for row in written)
