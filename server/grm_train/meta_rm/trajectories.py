"""The rows of `grm collect` as examples for a meta RM. Pure."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from grm_client.data.trajectories import ErrorRow, Item, ItemRow, LabelledSample
from grm_server.grm.prompts import JudgeTemplate
from grm_server.grm.types import Order
from grm_train.turns import messages_of, turns


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One sample of a judge, and whether it is right."""

    line: int
    """Of the item. Right and wrong trajectories are told apart within it."""
    query: str
    """Digest of the conversation. Items on the same one are never on both sides of a split."""
    order: Order
    """order[p] = index of the response that stood at position p."""
    user: str
    """What the meta RM is shown, in that order."""
    answer: str
    """All that the judge said."""
    right: bool
    shown: tuple[int, ...]
    """Scores in the order shown."""
    expected_last: float | None
    """Expectation of the last of them by the judge's own probabilities, None where it did not tell. Of the others its
    tokens may not tell: "1" can be the beginning of "10"."""
    lengths: tuple[int, ...]
    """Characters of principles, critique, and the responses in the order shown."""

    @property
    def tied(self) -> bool:
        """Whether several responses share the highest score: wrong by definition."""
        return self.shown.count(max(self.shown)) > 1


@dataclass(frozen=True, slots=True)
class Data:
    """What a file of trajectories holds for a meta RM."""

    trajectories: tuple[Trajectory, ...]
    """By line and order, so that those with the same prompt stand together."""
    left_out: Counter[str]
    """Trajectories by reason, and rows without any."""
    judges: tuple[str, ...]
    """Who wrote them."""

    @property
    def prompts(self) -> int:
        return len({trajectory.query for trajectory in self.trajectories})


def read_data(rows: Iterable[ItemRow | ErrorRow], template: JudgeTemplate) -> Data:
    """Samples that saw the label teach nothing about those that do not, and are left out.

    template: the meta RM's.
    """
    found: list[Trajectory] = []
    left_out: Counter[str] = Counter()
    judges: set[str] = set()
    for row in rows:
        if isinstance(row, ErrorRow):
            left_out[f"error {row.error.code}"] += 1
            continue
        reasons = [_useless(sample) for sample in row.samples]
        left_out.update(reason for reason in reasons if reason is not None)
        used = [sample for sample, reason in zip(row.samples, reasons, strict=True) if reason is None]
        found += _of_item(row.line, row, used, template)
        if used and row.model is not None:
            judges.add(row.model)
    found.sort(key=lambda trajectory: (trajectory.line, trajectory.order))
    return Data(tuple(found), left_out, tuple(sorted(judges)))


def _useless(sample: LabelledSample) -> str | None:
    if sample.hinted:
        return "hinted"
    return "neither right nor wrong" if sample.right is None else None


def _of_item(line: int, item: Item, samples: Iterable[LabelledSample], template: JudgeTemplate) -> Iterator[Trajectory]:
    query = _digest(item.query)
    # One text for each order, however many samples saw it.
    users: dict[Order, str] = {}
    for sample in samples:
        user, answer = turns(template, item, sample)
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
    """Of the conversation, blanks aside."""
    said = [[message.role, " ".join(message.content.split())] for message in messages_of(query)]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()
