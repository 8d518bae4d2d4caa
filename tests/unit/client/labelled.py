"""Labelled samples, and rows of a file of trajectories."""

from grm_client.data.jsonl import Labels, result_row
from grm_client.data.trajectories import LabelledSample, difficulty

FIELDS = {"order": (0, 1), "principles": "P", "critique": "C", "failure": None, "finish_reason": "stop", "seed": 7}


def trajectory(scores: tuple[int | None, ...] | None, right: bool | None, *, hinted: bool = False) -> LabelledSample:
    rest = FIELDS | ({"failure": "no_scores"} if scores is None else {})
    return LabelledSample(index=0, scores=scores, right=right, hinted=hinted, completion_tokens=10, **rest)


RIGHT, WRONG, TIED = trajectory((9, 1), True), trajectory((1, 9), False), trajectory((5, 5), False)
UNPARSED, PARTIAL = trajectory(None, None), trajectory((9, None), None)
HINTED = trajectory((9, 1), True, hinted=True)


def row(line: int, *samples: LabelledSample, responses: tuple[str, ...] = ("a", "b")) -> bytes:
    fields = {
        "model": "judge",
        "query": "q",
        "responses": responses,
        "label": 0,
        "reference": None,
        "principles": None,
        "task": "",
        "difficulty": difficulty(samples),
        "samples": [sample.model_dump() for sample in samples],
        "usage": None,
    }
    return result_row(Labels(line, {"any": ["thing"]}, f"key {line}"), fields)
