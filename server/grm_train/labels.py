"""Labelled requests, and the judge's answers to them. Pure: the command line does the scoring in between.

read_labels -> (grm score) -> read_answers
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json

from grm_server.grm.calibration import LabelledAnswer


class Line(NamedTuple):
    """One line of a file of labelled requests."""

    text: bytes
    """Input line for `grm score`; blank if the request is unusable."""
    label: int | None = None
    """Index of the best response; None if the request is unusable."""
    digest: str = ""
    """Hash of the request. The answer carries it in its `id`, which proves that the two belong together."""


def read_labels(source: Iterable[bytes]) -> tuple[list[Line], Counter[str]]:
    """Requests as for `grm score`, each with `label`, the index of its best response; and counts of unusable requests
    by reason.

    A line that is not a JSON object is passed on unchanged: `grm score` reports its error.
    """
    lines: list[Line] = []
    skipped: Counter[str] = Counter()
    for text in source:
        try:
            request = from_json(text.removeprefix(codecs.BOM_UTF8))
        except ValueError:
            request = None
        if not isinstance(request, dict):
            lines.append(Line(text))
            continue
        row_id, label = request.pop("id", None), request.pop("label", None)
        reason = _reason_to_skip(label, request.get("responses"))
        if reason is not None:
            lines.append(Line(b"\n"))
            skipped[reason] += 1
            continue
        digest = hashlib.blake2b(json.dumps(request, sort_keys=True).encode(), digest_size=8).hexdigest()
        tagged = request | {"id": {"id": row_id, "request": digest}}
        lines.append(Line(json.dumps(tagged).encode() + b"\n", label, digest))
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


class _Tag(BaseModel):
    request: str


class _Answer(BaseModel):
    """The fields we use of a row that `grm score` wrote."""

    line: int = Field(ge=1)
    id: _Tag
    model: str
    best: int
    p_best: tuple[float, ...]
    k_used: int


class _Error(BaseModel):
    code: str


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


def read_answers(rows: Iterable[bytes], lines: Sequence[Line]) -> Answers:
    """Join the rows that `grm score` wrote with their lines. Labels come from the lines: they may have been corrected.

    Raises ValueError for rows that answer other requests, and for answers of two models.
    """
    labelled: list[LabelledAnswer] = []
    models: set[str] = set()
    skipped: Counter[str] = Counter()
    right = 0
    unanswered = {number for number, line in enumerate(lines, 1) if line.label is not None}
    for number, text in enumerate(rows, 1):
        row = _read_row(number, text)
        unanswered.discard(row.line)
        if isinstance(row, _Failure):
            skipped[f"error {row.error.code}"] += 1
            continue
        line = lines[row.line - 1] if row.line <= len(lines) else None
        if line is None or line.label is not None and line.digest != row.id.request:
            raise ValueError(f"row {number} of the answers does not belong to the request on line {row.line}")
        if line.label is not None:
            models.add(row.model)
            labelled.append(LabelledAnswer(row.p_best, row.k_used, line.label))
            right += row.best == line.label
    if len(models) > 1:
        raise ValueError(f"the answers come from several models: {', '.join(sorted(models))}")
    if unanswered:
        skipped["no answer"] = len(unanswered)
    return Answers("".join(models), labelled, right, skipped)


def _read_row(number: int, text: bytes) -> _Answer | _Failure:
    try:
        return _ROW.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"][1:]))
        raise ValueError(f"row {number} of the answers is invalid: {where}: {first['msg']}") from None
