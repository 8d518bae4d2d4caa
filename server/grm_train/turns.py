"""Trajectories as chat turns: what the judge saw, and what it wrote."""

from __future__ import annotations

from typing import Any

from grm_client.data.sft import Turns
from grm_client.data.trajectories import Item, LabelledSample
from grm_server.grm.prompts import JudgeTemplate, judge_turn, sanitized
from grm_server.grm.types import Message, Task


def turns(template: JudgeTemplate, item: Item, sample: LabelledSample) -> Turns:
    """The user turn without the hint, and the judge's turn with its leads.

    Principles given in the request are such a lead, so they are part of the judge's turn, as in the original prompt.
    With a meta RM's template, the result is the meta RM's input.
    """
    task = sanitized(Task(messages_of(item.query), tuple(item.responses), item.reference, item.principles), template)
    order, scores = sample.order or (), sample.scores or ()
    principles = sample.principles if task.principles is None else task.principles
    completion = judge_turn(principles or "", sample.critique or "", [scores[i] or 0 for i in order])
    return Turns(template.render(task, order), completion)


def messages_of(query: Any) -> tuple[Message, ...]:
    """The conversation of a row; a string is a single user turn."""
    if isinstance(query, str):
        return (Message("user", query),)
    return tuple(Message(turn["role"], turn["content"]) for turn in query)
