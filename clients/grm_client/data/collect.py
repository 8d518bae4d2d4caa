"""Sample a judge on labelled items and label what it said: data for training judges and meta RMs.

    in    requests as for `grm score`, each with `label`: index of the best response; for one response 1 (good), 0 (bad)
    out   the rows of `trajectories`

Liu et al. 2025, arXiv 2504.02495, section 3.1: n samples an item; where none is right, n more with the label as a hint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO, NamedTuple

from grm_client.client import AsyncGRMClient
from grm_client.data.jsonl import BadLine, Row, parse_line, result_row
from grm_client.data.trajectories import ErrorRow, Item, ItemRow, LabelledSample, difficulty, failed, labelled
from grm_client.data.work_file import Done, Progress, work_file
from grm_client.errors import APIError
from grm_client.rule_reward import labels_of
from grm_client.transport import as_rewards


class Survey(NamedTuple):
    """What there is to do."""

    lines: int
    skipped: Counter[str]
    """Lines without a label that can be used, by reason."""


def survey(source: Iterable[bytes], rows: Iterable[ItemRow | ErrorRow]) -> Survey:
    """Look at the labelled requests, and whether the rows that there are belong to them.

    Raises ValueError for a row about another request, or under another label, than its line.
    """
    skipped: Counter[str] = Counter()
    waiting = iter(rows)
    row, number = next(waiting, None), 0
    for number, line in enumerate(source, 1):
        try:
            body = parse_line(number, line, {}).body if line.strip() else None
        except BadLine:
            body = None
        reason = body and useless(body)
        if reason:
            skipped[reason] += 1
        if row is not None and row.line == number:
            if isinstance(row, ItemRow) and (not body or reason or _asked(body) != _asked(row.model_dump())):
                break
            row = next(waiting, None)
    if row is not None:
        raise ValueError(f"the row of line {row.line} is about another request or label than that line")
    return Survey(number, skipped)


def useless(body: Mapping[str, Any]) -> str | None:
    """Why nothing can be learnt from a request, or None. What is wrong with the request itself, the server says."""
    label, responses = body.get("label"), body.get("responses")
    if label is None:
        return "no label"
    if not isinstance(responses, list) or not responses:
        return None
    # To Python True is 1.
    if type(label) is int and 0 <= label < labels_of(len(responses)):
        return None
    return "label is no index of a response" if len(responses) > 1 else "label of one response is not 0 or 1"


def _asked(body: Mapping[str, Any]) -> dict[str, Any]:
    """What a row says of its request."""
    asked = {name: body.get(name) for name in ("query", "responses", "label", "reference", "principles")}
    return asked | {"task": body.get("task") or ""}


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

    n: samples an item.
    hint: where no sample is right, draw n more with the label as a hint.
    seed: for lines that do not say.
    """

    async def collect(number: int, row: Row) -> Done:
        if useless(row.body):
            return Done()
        item = await _collect(client, row.body, n, hint)
        spent = sum(sample.completion_tokens for sample in item.samples)
        return Done(result_row(number, row.id, item.model_dump(mode="json")), len(item.samples), spent)

    return await work_file(
        collect, source, out, concurrency=concurrency, defaults={"seed": seed}, skip=skip, on_progress=on_progress
    )


class _Draw(NamedTuple):
    """What one request gave."""

    model: str | None
    samples: list[LabelledSample]
    usage: dict[str, int] | None


async def _collect(client: AsyncGRMClient, body: Mapping[str, Any], n: int, hint: bool) -> Item:
    label: int = body["label"]
    request = _request(body, n)
    first = await _draw(client, request, label, hinted=False)
    found = difficulty(first.samples)
    more = _Draw(None, [], None)
    if hint and found == "unsolved":
        more = await _draw(client, request | {"hint": label}, label, hinted=True)
    return Item(
        **_asked(body),
        model=first.model,
        difficulty=found,
        samples=[*first.samples, *more.samples],
        usage=_sum(first.usage, more.usage),
    )


def _request(body: Mapping[str, Any], n: int) -> dict[str, Any]:
    """n readings of all responses at once, all of them returned, and no label."""
    rest = {name: value for name, value in body.items() if name not in ("label", "hint")}
    responses = body.get("responses")
    # A sample that shows a part of the responses cannot pick the best of all. Rewards are not wanted, so a server that
    # has a meta RM need not ask it. How probable the judge held its last score is a baseline of `grm train-meta-rm`.
    list_size = max(2, len(responses)) if isinstance(responses, list) else None
    usual = {"list_size": list_size, "aggregate": "mean", "reading": "expected"}
    # What a judge is to learn is to write its own principles.
    always = {"principles_from": "sample", "stop": {"rule": "fixed"}, "min_votes": 1, "return_samples": True}
    return usual | rest | always | {"k": n}


async def _draw(client: AsyncGRMClient, request: Mapping[str, Any], label: int, *, hinted: bool) -> _Draw:
    try:
        answer = as_rewards(await client.post(request))
    except APIError as error:
        if error.code != "too_few_votes":
            raise
        # Samples that do not parse are what this is about; they must not vanish from the counts.
        return _Draw(None, failed(error.details, hinted=hinted), None)
    return _Draw(answer.model, labelled(answer.samples or (), label, hinted=hinted), answer.usage.model_dump())


def _sum(one: dict[str, int] | None, other: dict[str, int] | None) -> dict[str, int] | None:
    if one is None or other is None:
        return one or other
    return {name: one[name] + other[name] for name in one}
