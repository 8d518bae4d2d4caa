"""Sample a judge on labelled items and label the samples: data for training judges and meta RMs.

    in    requests as for `grm score`, each with `label`: index of the best response; for one response 1 (good), 0 (bad)
    out   the rows of `trajectories`

Liu et al. 2025, arXiv 2504.02495, section 3.1: n samples per item; if none is right, n more with the label as a hint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

from grm_client.client import AsyncGRMClient
from grm_client.data.jsonl import BadLine, Row, parse_line, result_row
from grm_client.data.trajectories import (
    ErrorRow,
    Item,
    ItemRow,
    LabelledSample,
    difficulty,
    failed_samples,
    label_samples,
)
from grm_client.data.work_file import LineResult, Progress, work_file
from grm_client.errors import APIError
from grm_client.rule_reward import label_count
from grm_client.transport import as_rewards


class Survey(NamedTuple):
    """Contents of a file of labelled requests."""

    lines: int
    """Number of lines, including skipped ones."""
    skipped: Counter[str]
    """Lines without a usable label, by reason."""


def survey(source: Iterable[bytes], rows: Iterable[ItemRow | ErrorRow]) -> Survey:
    """Count the labelled requests, and check that the existing output rows belong to them.

    Raises ValueError for a row whose request or label differs from that of its line.
    """
    skipped: Counter[str] = Counter()
    remaining = iter(rows)
    row, number = next(remaining, None), 0
    for number, line in enumerate(source, 1):
        try:
            body = parse_line(number, line, {}).body if line.strip() else None
        except BadLine:
            body = None
        reason = body and skip_reason(body)
        if reason:
            skipped[reason] += 1
        if row is not None and row.line == number:
            if isinstance(row, ItemRow) and (not body or reason or _request_of(body) != _request_of(row.model_dump())):
                break
            row = next(remaining, None)
    if row is not None:
        raise ValueError(f"the row of line {row.line} is about another request or label than that line")
    return Survey(number, skipped)


def skip_reason(body: Mapping[str, Any]) -> str | None:
    """Why the label of a request cannot be used, or None. The server checks the request itself."""
    label, responses = body.get("label"), body.get("responses")
    if label is None:
        return "no label"
    if not isinstance(responses, list) or not responses:
        return None
    # Not isinstance: bool is a subclass of int.
    if type(label) is int and 0 <= label < label_count(len(responses)):
        return None
    return "label is no index of a response" if len(responses) > 1 else "label of one response is not 0 or 1"


def _request_of(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a request that its row repeats."""
    fields = {name: body.get(name) for name in ("query", "responses", "label", "reference", "principles")}
    return fields | {"task": body.get("task") or ""}


async def collect_file(
    client: AsyncGRMClient,
    source: Iterable[bytes],
    out: BinaryIO,
    *,
    n: int,
    hint: bool,
    concurrency: int,
    seed: int | None,
    skip: int,
    on_progress: Callable[[Progress], None],
) -> Progress:
    """Write a row of labelled trajectories for every usable line of `source` after the first `skip`. See `work_file`.

    n: samples per item.
    hint: if no sample is right, draw n more with the label as a hint.
    seed: for lines without a seed.
    """

    async def collect(number: int, row: Row) -> LineResult:
        if skip_reason(row.body):
            return LineResult()
        item = await _collect(client, row.body, n, hint)
        tokens = sum(sample.completion_tokens for sample in item.samples)
        return LineResult(result_row(number, row.id, item.model_dump(mode="json")), len(item.samples), tokens)

    return await work_file(
        collect, source, out, concurrency=concurrency, defaults={"seed": seed}, skip=skip, on_progress=on_progress
    )


class _LabelledAnswer(NamedTuple):
    """Labelled samples of one request."""

    model: str | None
    samples: list[LabelledSample]
    usage: dict[str, int] | None


async def _collect(client: AsyncGRMClient, body: Mapping[str, Any], n: int, hint: bool) -> Item:
    label: int = body["label"]
    request = _request(body, n)
    unhinted = await _sample(client, request, label, hinted=False)
    level = difficulty(unhinted.samples)
    hinted = _LabelledAnswer(None, [], None)
    if hint and level == "unsolved":
        hinted = await _sample(client, request | {"hint": label}, label, hinted=True)
    return Item(
        **_request_of(body),
        model=unhinted.model,
        difficulty=level,
        samples=[*unhinted.samples, *hinted.samples],
        usage=_sum(unhinted.usage, hinted.usage),
    )


def _request(body: Mapping[str, Any], n: int) -> dict[str, Any]:
    """A request for n samples of all responses together, all returned, without the label."""
    fields = {name: value for name, value in body.items() if name not in ("label", "hint")}
    responses = body.get("responses")
    # One list: a sample that shows only some responses cannot pick the best of all. Aggregate "mean": we discard the
    # rewards, so a server with a meta RM need not run it. Reading "expected": the judge's confidence in its last score
    # is a baseline of `grm train-meta-rm`.
    list_size = max(2, len(responses)) if isinstance(responses, list) else None
    defaults = {"list_size": list_size, "aggregate": "mean", "reading": "expected"}
    # principles_from "sample": the judge is to learn to write its own principles.
    forced = {"principles_from": "sample", "stop": {"rule": "fixed"}, "min_votes": 1, "return_samples": True}
    return defaults | fields | forced | {"k": n}


async def _sample(client: AsyncGRMClient, request: Mapping[str, Any], label: int, *, hinted: bool) -> _LabelledAnswer:
    try:
        answer = as_rewards(await client.post(request))
    except APIError as error:
        if error.code != "too_few_votes":
            raise
        # No sample parsed. The counts must include such samples.
        return _LabelledAnswer(None, failed_samples(error.details, hinted=hinted), None)
    samples = label_samples(answer.samples or (), label, hinted=hinted)
    return _LabelledAnswer(answer.model, samples, answer.usage.model_dump())


def _sum(one: dict[str, int] | None, other: dict[str, int] | None) -> dict[str, int] | None:
    if one is None or other is None:
        return one or other
    return {name: one[name] + other[name] for name in one}
