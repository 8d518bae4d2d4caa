"""Trajectories as chat turns: what the judge saw, and what it wrote."""

from __future__ import annotations

from typing import Any

from grm_client.data.sft import Turns
from grm_client.data.trajectories import Item, LabelledSample
from grm_server.grm.prompt_template import PromptTemplate, sanitized
from grm_server.grm.prompts import JudgeFormat, judge_turn
from grm_server.grm.script import plain
from grm_server.grm.types import Message, Task


def turns(form: JudgeFormat, item: Item, sample: LabelledSample, meta: PromptTemplate | None = None) -> Turns:
    """The user turn without the hint, and the judge's turn with its leads.

    Principles given in the request are such a lead, so they are part of the judge's turn, as in the original prompt.
    form: the judge's. meta: the meta RM's template; with it, the result is the meta RM's input.
    """
    structure = form.structure if meta is None else form.structure | meta.structure
    task = sanitized(Task(messages_of(item.query), tuple(item.responses), item.reference, item.principles), structure)
    order, scores = sample.order or (), sample.scores or ()
    principles = sample.principles if task.principles is None else task.principles
    completion = judge_turn(form, principles or "", sample.critique or "", [scores[i] or 0 for i in order])
    if meta is not None:
        return Turns(plain(meta.render(task, order)), completion)
    return Turns("\n\n".join(plain(turn.content) for turn in form.turns(task, order)), completion)


def messages_of(query: Any) -> tuple[Message, ...]:
    """The conversation of a row; a string is a single user turn."""
    if isinstance(query, str):
        return (Message("user", query),)
    return tuple(Message(turn["role"], turn["content"]) for turn in query)
