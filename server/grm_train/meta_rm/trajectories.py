"""Rows of `grm collect` as examples for a meta RM. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from grm_client.data.trajectories import ErrorRow, Item, ItemRow, LabelledSample
from grm_server.grm.prompt_template import PromptTemplate
from grm_server.grm.prompts import JudgeFormat
from grm_server.grm.types import Order
from grm_train.turns import messages_of, turns


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One sample of a judge, and whether it is right."""

    line: int
    """Line of the item. The meta RM is measured on telling right from wrong within an item."""
    query: str
    """Hash of the conversation. Items with the same conversation are always in the same part of the split."""
    order: Order
    """order[p] = index of the response at position p."""
    user: str
    """The meta RM's user turn, with the responses in that order."""
    answer: str
    """The judge's whole turn."""
    right: bool
    shown: tuple[float, ...]
    """Scores, in the order shown."""
    expected_last: float | None
    """Expectation of the last score under the judge's own probabilities; None if there are none. The tokens of the
    other scores may be ambiguous: "1" can be the beginning of "10"."""
    lengths: tuple[int, ...]
    """Characters of principles, critique, and the responses in the order shown."""

    @property
    def tied(self) -> bool:
        """Whether several responses share the highest score; such a trajectory is wrong by definition."""
        return self.shown.count(max(self.shown)) > 1


@dataclass(frozen=True, slots=True)
class Data:
    """The usable content of a file of trajectories."""

    trajectories: tuple[Trajectory, ...]
    """Sorted by line and order, so equal prompts are adjacent."""
    left_out: Counter[str]
    """Unused trajectories, and rows without any, by reason."""
    judges: tuple[str, ...]
    """Models that wrote the trajectories."""

    @property
    def prompts(self) -> int:
        return len({trajectory.query for trajectory in self.trajectories})


def read_data(rows: Iterable[ItemRow | ErrorRow], form: JudgeFormat, template: PromptTemplate) -> Data:
    """Convert rows to trajectories. Leaves out samples that saw the label as a hint: they differ from normal ones.

    form: the judge's. template: the meta RM's.
    """
    trajectories: list[Trajectory] = []
    left_out: Counter[str] = Counter()
    judges: set[str] = set()
    for row in rows:
        if isinstance(row, ErrorRow):
            left_out[f"error {row.error.code}"] += 1
            continue
        reasons = [_reason_to_skip(sample) for sample in row.samples]
        left_out.update(reason for reason in reasons if reason is not None)
        used = [sample for sample, reason in zip(row.samples, reasons, strict=True) if reason is None]
        trajectories += _of_item(row.line, row, used, form, template)
        if used and row.model is not None:
            judges.add(row.model)
    trajectories.sort(key=lambda trajectory: (trajectory.line, trajectory.order))
    return Data(tuple(trajectories), left_out, tuple(sorted(judges)))


def _reason_to_skip(sample: LabelledSample) -> str | None:
    if sample.hinted:
        return "hinted"
    return "neither right nor wrong" if sample.right is None else None


def _of_item(
    line: int, item: Item, samples: Iterable[LabelledSample], form: JudgeFormat, template: PromptTemplate
) -> Iterator[Trajectory]:
    query = _digest(item.query)
    # One text object per order, shared by its samples.
    users: dict[Order, str] = {}
    for sample in samples:
        user, answer = turns(form, item, sample, template)
        order, scores = sample.order or (), sample.scores or ()
        texts = (sample.principles or item.principles or "", sample.critique or "", *(item.responses[i] for i in order))
        yield Trajectory(
            line=line,
            query=query,
            order=order,
            user=users.setdefault(order, user),
            answer=answer,
            right=bool(sample.right),
            shown=tuple(scores[i] or 0 for i in order),
            expected_last=sample.expected_scores[order[-1]] if sample.expected_scores and order else None,
            lengths=tuple(map(len, texts)),
        )


def _digest(query: Any) -> str:
    """Hash of the conversation, with whitespace normalised."""
    messages = [[message.role, " ".join(message.content.split())] for message in messages_of(query)]
    return hashlib.sha256(json.dumps(messages).encode()).hexdigest()
