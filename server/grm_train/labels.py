"""Labelled requests, and the judge's answers to them. Pure: the command line does the scoring in between.

read_labels -> (grm score) -> read_answers
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from grm_client.data.columns import LABEL
from grm_client.data.jsonl import BadLine, parse_line, shape_problem
from grm_server.grm.calibration import LabelledAnswer


class Line(NamedTuple):
    """One line of a file of labelled requests."""

    text: bytes
    """Input line for `grm score`; blank if the request is unusable."""
    label: int | None = None
    """Index of the best response; None if the request is unusable."""


def read_labels(source: Iterable[bytes]) -> tuple[list[Line], Counter[str]]:
    """Requests as for `grm score`, each with `label`, the index of its best response; and counts of unusable lines by
    reason.

    A line that is not a JSON object is passed on unchanged: `grm score` reports its error.
    """
    lines: list[Line] = []
    skipped: Counter[str] = Counter()
    for number, text in enumerate(source, 1):
        if not text.strip():
            lines.append(Line(text))
            skipped["blank"] += 1
            continue
        try:
            row = parse_line(number, text, {})
        except BadLine:
            lines.append(Line(text))
            continue
        label = row.meta.get(LABEL)
        reason = shape_problem(row) or _reason_to_skip(label, row.body["responses"])
        if reason is not None:
            skipped[reason] += 1
        lines.append(Line(text, label) if reason is None else Line(b"\n"))
    return lines, skipped


def _reason_to_skip(label: object, responses: object) -> str | None:
    n = len(responses) if isinstance(responses, list) else 0
    if label is None:
        return "no label"
    if n == 1:
        return "one response"
    # `type`, not isinstance: True is an int in Python.
    if type(label) is not int or label not in range(n):
        return "label is not the index of a response"
    return None


class _Answer(BaseModel):
    """The fields we use of a row that `grm score` wrote."""

    line: int = Field(ge=1)
    model: str
    format: str | None = None
    """None in answers of earlier versions."""
    best: int
    p_best: tuple[float, ...]
    k_used: int


class _Error(BaseModel):
    code: str
    param: str | None = None


class _Failure(BaseModel):
    line: int
    error: _Error


_ROW: TypeAdapter[_Answer | _Failure] = TypeAdapter(_Answer | _Failure)


@dataclass(frozen=True, slots=True)
class Answers:
    """A judge's answers to labelled requests."""

    model: str
    labelled: list[LabelledAnswer]
    right: int
    """Requests whose best response by reward is the labelled one."""
    skipped: Counter[str]
    """Labelled requests without an answer, by reason."""
    format: str = "deepseek-grm"
    """The judge's format. Answers of earlier versions do not say it; they had no other."""


def read_answers(rows: Iterable[bytes], lines: Sequence[Line]) -> Answers:
    """Join the rows that `grm score` wrote with their lines. Labels come from the lines: they may have been corrected.

    rows: the answers to these lines, after a complete run, which numbers its rows by the lines.

    Raises ValueError for invalid rows, and for answers of two models or formats.
    """
    labelled: list[LabelledAnswer] = []
    models: set[str] = set()
    formats: set[str] = set()
    skipped: Counter[str] = Counter()
    right = 0
    unanswered = {number for number, line in enumerate(lines, 1) if line.label is not None}
    for number, text in enumerate(rows, 1):
        row = _read_row(number, text)
        unanswered.discard(row.line)
        if isinstance(row, _Failure):
            skipped[f"error {row.error.code}" + (f" ({row.error.param})" if row.error.param else "")] += 1
            continue
        label = lines[row.line - 1].label if row.line <= len(lines) else None
        if label is None:
            raise ValueError(f"row {number} of the answers does not belong to a labelled request")
        models.add(row.model)
        formats.update([row.format] if row.format is not None else [])
        labelled.append(LabelledAnswer(row.p_best, row.k_used, label))
        right += row.best == label
    if len(models) > 1:
        raise ValueError(f"the answers come from several models: {', '.join(sorted(models))}")
    if len(formats) > 1:
        raise ValueError(f"the answers come in several formats: {', '.join(sorted(formats))}")
    if unanswered:
        skipped["no answer"] = len(unanswered)
    return Answers("".join(models), labelled, right, skipped, *formats)


def _read_row(number: int, text: bytes) -> _Answer | _Failure:
    try:
        return _ROW.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"][1:]))
        raise ValueError(f"row {number} of the answers is invalid: {where}: {first['msg']}") from None
