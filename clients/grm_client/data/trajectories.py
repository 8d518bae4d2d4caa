"""Labelled trajectories: the rows of `grm collect`. Pure.

    {"line": 3, "id": ..., "model": ..., "query": ..., "responses": [...], "label": 1, "reference": null,
     "principles": null, "task": "", "difficulty": "mixed", "samples": [...], "usage": {...}}
    {"line": 4, "id": ..., "error": {"code": ..., "message": ..., ...}}

They hold all that a trainer of a judge or of a meta RM needs: the file of labelled requests is not read again.
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
    """Launch order, within those that were drawn with the hint and within those without. This, `order` and `seed` are
    None where no sample of the request gave scores: the server then says only why."""
    order: tuple[int, ...] | None
    """order[p] = index of the response that stood at position p."""
    principles: str | None
    """None where they were given in the request."""
    critique: str | None
    scores: tuple[int | None, ...] | None
    """(n,), request order, each 1..10; None for a response that the sample was not shown."""
    expected_scores: tuple[float | None, ...] | None = None
    """(n,), each score's expectation given what was written before it, None where the tokens do not tell."""
    right: bool | None
    """By `rule_reward.is_right`; None where there are no scores, or not for every response."""
    failure: str | None
    """None, or why there are no scores."""
    hinted: bool
    """Whether the judge was told the label."""
    finish_reason: str | None
    """"length": principles or critique were cut at the token budget."""
    completion_tokens: int
    seed: int | None


class Item(_Part):
    """A labelled item and what a judge said about it."""

    model: str | None
    """None where no sample gave scores."""
    query: Any
    """As in the request: a string, or chat messages."""
    responses: list[str]
    label: int
    """Index of the best response; of one response 1 (good) or 0 (bad)."""
    reference: str | None
    principles: str | None
    """Given in the request, instead of the judge's own."""
    task: str
    difficulty: Difficulty | None
    """Whether all, some or none of the samples are right, of those without a hint that are right or wrong at all; None
    if there are none."""
    samples: list[LabelledSample]
    usage: dict[str, int] | None
    """`types.Usage` of all samples, as it was when the row was written; None where the server did not tell."""


class ItemRow(Item):
    line: int = Field(ge=1)
    id: Any


class _Error(_Part):
    code: str


class ErrorRow(_Part):
    """A line without trajectories."""

    line: int = Field(ge=1)
    error: _Error


_ROW: TypeAdapter[ItemRow | ErrorRow] = TypeAdapter(ItemRow | ErrorRow)


def labelled(samples: Iterable[Sample], label: int, *, hinted: bool) -> list[LabelledSample]:
    """The samples of an answer, each with whether it is right."""
    return [
        LabelledSample(
            **sample.model_dump(include=set(LabelledSample.model_fields)),
            right=None if sample.scores is None else is_right(sample.scores, label),
            hinted=hinted,
        )
        for sample in samples
    ]


def failed(reasons: Mapping[str, int], *, hinted: bool) -> list[LabelledSample]:
    """The samples of a request of which none gave scores: the server tells how many failed why, and no more."""
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
    """How hard an item is for the judge. The hint's samples do not count: they show what it can be told."""
    verdicts = {sample.right for sample in samples if not sample.hinted and sample.right is not None}
    if not verdicts:
        return None
    return "mixed" if len(verdicts) == 2 else "too_easy" if verdicts == {True} else "unsolved"


def read_rows(rows: Iterable[bytes]) -> Iterator[ItemRow | ErrorRow]:
    """The rows of `grm collect`, up to one that was being written when the process died.

    Raises ValueError for rows of another kind.
    """
    for number, text in enumerate(rows, 1):
        if not text.endswith(b"\n"):
            return
        try:
            yield _ROW.validate_json(text)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"][1:]))
            raise ValueError(f"row {number} is no row of `grm collect`: {where}: {first['msg']}") from None
