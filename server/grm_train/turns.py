"""Trajectories as chat turns: what the judge saw, and what it wrote."""

from __future__ import annotations

from typing import Any

from grm_client.data.sft import ChatTurn, Turns
from grm_client.data.trajectories import Item, LabelledSample
from grm_server.grm.formats import ThoughtFormat
from grm_server.grm.prompt_template import PromptTemplate, SanitizedTask, sanitized
from grm_server.grm.prompts import JudgeFormat, judge_turn
from grm_server.grm.script import plain
from grm_server.grm.structure import Structure
from grm_server.grm.types import Message, Task


def turns(form: JudgeFormat, item: Item, sample: LabelledSample) -> Turns:
    """The prompt without the hint, and the judge's whole turn with its thought and its leads.

    Principles given in the request are such a lead, so they are part of the judge's turn, as in the original prompt.
    form: the judge's. Raises ValueError for scores that the format does not have.
    """
    task = _task(item, form.structure)
    prompt = tuple(ChatTurn(turn.role, plain(turn.content)) for turn in form.turns(task, sample.order or ()))
    answer = _answer(form, task, sample) + _later_verdicts(form, sample)
    if form.file.thought is None or sample.thought is None:
        return Turns(prompt, answer)
    return Turns(prompt, _thought(form.file.thought, sample.thought) + answer)


def meta_turns(form: JudgeFormat, item: Item, sample: LabelledSample, meta: PromptTemplate) -> tuple[str, str]:
    """What a meta RM reads: its user turn, and the judge's answer without the thought.

    form: the judge's. meta: the meta RM's template. Raises ValueError for scores that the format does not have.
    """
    task = _task(item, form.structure | meta.structure)
    return plain(meta.render(task, sample.order or ())), _answer(form, task, sample)


def _task(item: Item, structure: Structure) -> SanitizedTask:
    return sanitized(Task(messages_of(item.query), tuple(item.responses), item.reference, item.principles), structure)


def _answer(form: JudgeFormat, task: SanitizedTask, sample: LabelledSample) -> str:
    scores = sample.scores or ()
    shown = [score for i in sample.order or () if (score := scores[i]) is not None]
    principles = sample.principles if task.principles is None else task.principles
    try:
        return judge_turn(form, principles or "", sample.critique or "", shown)
    except ValueError as error:
        raise ValueError(f"a row of the format {form.name}: {error}") from error


def _thought(thought: ThoughtFormat, text: str) -> str:
    """The thought as the judge wrote it. Its text comes without the white space around it: where we close a thought
    with no more than white space around the mark, the judge does so too."""
    natural = thought.when_cut.strip() == thought.closes.strip()
    return thought.opens + text + (thought.when_cut if natural else thought.closes) + thought.after


def _later_verdicts(form: JudgeFormat, sample: LabelledSample) -> str:
    """The verdicts after the first, with their leads."""
    n = len(sample.order or ())
    text, at, written = sample.verdict or "", 0, ""
    verdicts = form.file.verdicts_on(n)
    for index, (grammar, verdict) in enumerate(zip(form.grammars(n), verdicts, strict=True)):
        match = grammar.lenient.match(text, at) if len(verdicts) > 1 else None
        if match is None:
            break
        if index:
            values = "".join(value + gap for value, gap in zip(match.groups(), (*grammar.between, ""), strict=True))
            written += grammar.lead + values + verdict.after
        at = match.end()
    return written


def messages_of(query: Any) -> tuple[Message, ...]:
    """The conversation of a row; a string is a single user turn."""
    if isinstance(query, str):
        return (Message("user", query),)
    return tuple(Message(turn["role"], turn["content"]) for turn in query)
