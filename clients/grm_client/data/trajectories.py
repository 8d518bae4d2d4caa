"""Labelled trajectories: the rows of `grm collect`. Pure.

    {"line": 3, "id": ..., "key": ..., "options": {...}, "meta": {"label": 1}, "model": ..., "query": ...,
     "responses": [...], "label": 1, "reference": null, "principles": null, "task": "", "difficulty": "mixed",
     "samples": [...], "usage": {...}}
    {"line": 4, "id": ..., "key": ..., "options": {...}, "error": {"code": ..., "message": ..., ...}}

`jsonl` explains `key`, `options` and `meta`; rows of earlier versions do not have them.

A row holds everything needed to train a judge or a meta RM; the file of labelled requests is not needed again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from grm_client.rule_reward import is_right
from grm_client.types import Sample

Difficulty = Literal["too_easy", "mixed", "unsolved"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class LabelledSample(_Part):
    """One sample and whether it is right."""

    index: int | None
    """Launch order, counted separately for samples with and without the hint. `index`, `order` and `seed` are None if
    no sample of the request had scores: the server then only reports the reasons."""
    order: tuple[int, ...] | None
    """order[p] = index of the response at position p."""
    principles: str | None
    """None if the request gave them."""
    critique: str | None
    scores: tuple[int | float | None, ...] | None
    """(n,), request order, on the judge's own scale; None for a response that the sample did not show."""
    expected_scores: tuple[float | None, ...] | None = None
    """(n,), expectation of each score given the text before it; None if the token probabilities do not determine it."""
    right: bool | None
    """See `rule_reward.is_right`; None if any response has no score."""
    failure: str | None
    """Why there are no scores, or None."""
    hinted: bool
    """Whether the judge saw the label."""
    finish_reason: str | None
    """"stop", or "length" if principles or critique were cut at the token budget."""
    completion_tokens: int
    seed: int | None


class Item(_Part):
    """A labelled item and the judge's samples."""

    model: str | None
    """Name of the judge; None if no sample had scores."""
    query: Any
    """As in the request: a string, or chat messages."""
    responses: list[str]
    label: int
    """Index of the best response; of one response 1 (good) or 0 (bad)."""
    reference: str | None
    principles: str | None
    """The request's principles, or None if the judge wrote its own."""
    task: str
    difficulty: Difficulty | None
    """Whether all, some or none of the samples are right. Counts samples without a hint that are right or wrong; None
    if there are none."""
    samples: list[LabelledSample]
    usage: dict[str, int] | None
    """Sum of `types.Usage` over the requests of this item; None if the server did not report it."""


class ItemRow(Item):
    line: int = Field(ge=1)
    id: Any


class _Error(_Part):
    code: str


class ErrorRow(_Part):
    """Row of an input line that failed."""

    line: int = Field(ge=1)
    error: _Error


_ROW: TypeAdapter[ItemRow | ErrorRow] = TypeAdapter(ItemRow | ErrorRow)


def label_samples(samples: Iterable[Sample], label: int, *, hinted: bool) -> list[LabelledSample]:
    """Label each sample of an answer as right or wrong."""
    return [
        LabelledSample(
            **sample.model_dump(include=set(LabelledSample.model_fields)),
            right=None if sample.scores is None else is_right(sample.scores, label),
            hinted=hinted,
        )
        for sample in samples
    ]


def failed_samples(reasons: Mapping[str, int], *, hinted: bool) -> list[LabelledSample]:
    """The samples of a request in which all failed. The server then only reports the number of samples per reason."""
    return [
        LabelledSample(
            index=None,
            order=None,
            principles=None,
            critique=None,
            scores=None,
            right=None,
            failure=reason,
            hinted=hinted,
            finish_reason=None,
            completion_tokens=0,
            seed=None,
        )
        for reason, count in reasons.items()
        for _ in range(count)
    ]


def difficulty(samples: Iterable[LabelledSample]) -> Difficulty | None:
    """How hard an item is for the judge. Samples with the hint do not count, because the judge saw the label."""
    verdicts = {sample.right for sample in samples if not sample.hinted and sample.right is not None}
    if not verdicts:
        return None
    return "mixed" if len(verdicts) == 2 else "too_easy" if verdicts == {True} else "unsolved"


def read_rows(rows: Iterable[bytes]) -> Iterator[ItemRow | ErrorRow]:
    """Parse the rows of `grm collect`. Ends before an incomplete last row, left by a process that died while writing.

    Raises ValueError for any other row.
    """
    for number, text in enumerate(rows, 1):
        if not text.endswith(b"\n"):
            return
        try:
            yield _ROW.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"][1:]))
            raise ValueError(f"row {number} is not a row of `grm collect`: {where}: {first['msg']}") from None
