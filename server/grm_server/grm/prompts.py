"""Write the script of a planned sample from the task and the order of the responses; the engine runs it next.

The markers and the three output lines are the interface of the released DeepSeek-GRM checkpoints. The wording around
them is ours, and a custom template file may replace it.

Every inserted text may be hostile: responses come from a policy that is trained against this judge. Texts are sanitized
(`sanitize`) and substituted in one pass, so no response can close its fence, open a section, or plant a verdict for the
judge to copy. The engine, which knows the tokenizer, neutralizes the special tokens of the chat template.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import NewType

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from grm_server.grm.sanitize import neutralize, neutralizing, run
from grm_server.grm.slices import SLICE_CHARS, Slices
from grm_server.grm.structure import structure_of
from grm_server.grm.types import Message, Order, Reading, Script, Segment, Task

# The lead that the judge is given before it writes each part: the three output lines of the released checkpoints.
_PRINCIPLES, _CRITIQUE, _SCORES = "Specific Criteria:", "\nAnalysis:", "\nScores: \\boxed{"

_END_OF_CRITIQUE = ("\nScores:", "\n**Scores", "\n#### Scores")

SanitizedTask = NewType("SanitizedTask", Task)
"""A task whose texts are safe to show to a judge."""


class JudgeTemplate:
    """The user turn of a judge's or a meta RM's prompt, a Jinja template.

    Variables: `conversation`, `responses` (fenced blocks), `reference`, `principles` (text or None), `n`.
    """

    def __init__(self, source: str, *, principles: bool = True) -> None:
        """Raise ValueError unless the template shows each variable exactly once, and the responses last.

        principles: whether it shows the principles. A meta RM's template does not: they are in the judge's turn.
        """
        self.source = source
        try:
            self._template = _compiled(source)
            self.structure = structure_of(source)
            given = (None, "PROBE-PRINCIPLES") if principles else (None,)
            for probe in product((1, 3), (None, "PROBE-REFERENCE"), given):
                self._probe(*probe)
        except (TemplateError, TypeError, ArithmeticError) as error:
            raise ValueError(f"template: {error}") from error

    def _probe(self, n: int, reference: str | None, principles: str | None) -> None:
        responses = tuple(f"PROBE-RESPONSE-{i}." for i in range(n))
        task = Task((Message("user", "PROBE-QUERY"),), responses, reference, principles)
        prompt = self.render(SanitizedTask(task), tuple(range(n)))
        given = [text for text in ("PROBE-QUERY", reference, principles) if text is not None]
        for text in (*given, *responses):
            if prompt.count(text) != 1:
                raise ValueError(f"template: {text.split('-')[1].lower()} must be shown exactly once (n = {n})")
        if "None" in prompt:
            raise ValueError(
                "template: an absent reference or absent principles are shown as None; wrap them in {% if ... %}"
            )
        if max(map(prompt.index, given)) > prompt.index("PROBE-RESPONSE"):
            raise ValueError("template: the responses must come last, so all orders share one prefix")

    def render(self, task: SanitizedTask, order: tuple[int, ...]) -> str:
        """The prompt that shows `task.responses[order[p]]` at position p."""
        return self._template.render(
            conversation=_conversation(task.query),
            responses="\n".join(_fenced(f"Response {p + 1}", task.responses[i]) for p, i in enumerate(order)),
            reference=task.reference,
            principles=task.principles,
            n=len(order),
        )


class PrinciplesTemplate:
    """The user turn that asks for principles from the query alone, a Jinja template.

    Variables: `conversation`, `reference` (text or None).
    """

    def __init__(self, source: str, judge: JudgeTemplate) -> None:
        """judge: the template that shows the principles later, so inserted text may not imitate its structure either.

        Raise TemplateError if the source is not valid Jinja.
        """
        self._template = _compiled(source)
        self.structure = structure_of(source) | judge.structure

    def render(self, task: SanitizedTask) -> str:
        return self._template.render(conversation=_conversation(task.query), reference=task.reference)


def sanitized(task: Task, template: JudgeTemplate | PrinciplesTemplate) -> SanitizedTask:
    """The task with its texts rewritten so they cannot imitate the structure of the template that will show them."""

    return run(sanitizing(task, template))


_TEXT_CHARS = 32
"""Searching a text by all patterns costs as much as visiting so many characters, besides its own."""


def sanitizing(task: Task, template: JudgeTemplate | PrinciplesTemplate) -> Slices[SanitizedTask]:
    """`sanitized` in slices."""
    texts = (*(message.content for message in task.query), *task.responses, task.reference, task.principles)
    safe: list[str | None] = []
    visited = 0
    for text in texts:
        if text is None or len(text) <= SLICE_CHARS:
            safe.append(None if text is None else neutralize(text, template.structure))
            visited += _TEXT_CHARS + len(text or "")
        else:
            safe.append((yield from neutralizing(text, template.structure)))
        if visited >= SLICE_CHARS:
            yield visited
            visited = 0
    # The caller counts the works of many requests together.
    yield visited
    *shown, reference, principles = safe
    query, responses = shown[: len(task.query)], shown[len(task.query) :]
    return SanitizedTask(
        Task(
            query=tuple(Message(message.role, text or "") for message, text in zip(task.query, query, strict=True)),
            responses=tuple(text or "" for text in responses),
            reference=reference,
            principles=principles,
            hint=task.hint,
        )
    )


def _compiled(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)


def _fenced(label: str, text: str) -> str:
    return f"[The Begin of {label}]\n{text}\n[The End of {label}]"


def _conversation(query: tuple[Message, ...]) -> str:
    """A single user turn as is, as the released checkpoints were trained; otherwise each turn fenced by its role."""
    if len(query) == 1 and query[0].role == "user":
        return query[0].content
    return "\n".join(_fenced(f"{message.role.capitalize()} Turn", message.content) for message in query)


def write_script(
    template: JudgeTemplate, task: SanitizedTask, order: Order, max_critique_tokens: int, reading: Reading = "sampled"
) -> Script:
    """The script of one sample on the responses in `order`: principles (unless the task gives them), critique, scores.

    The scores are generated under a constraint once the critique has ended, by itself or at its budget, so they always
    parse. Only the text after our own lead counts as the verdict, so a verdict that the judge quotes is never mistaken
    for its own.
    """
    prompt = template.render(task, order) + _hint(task, order)
    return Script(prompt, _segments(task, len(order), max_critique_tokens, reading))


def write_principles_script(template: PrinciplesTemplate, task: SanitizedTask, max_tokens: int) -> Script:
    """The script for principles from the query alone, as the judge would otherwise write first in every sample.

    The prompt shows only the task's query and reference.
    """
    return Script(template.render(task), (_principles_segment(max_tokens),))


def judge_turn(principles: str, critique: str, shown: Iterable[int]) -> str:
    """The judge's whole turn of one sample, including the leads, in the format of the released checkpoints.

    shown: scores in the order shown.
    """
    scores = ", ".join(map(str, shown))
    return f"{_PRINCIPLES} {principles}{_CRITIQUE} {critique}{_SCORES}{scores}}}"


def _hint(task: SanitizedTask, order: Order) -> str:
    """Hinted sampling, for an item that the judge never gets right (Liu et al. 2025, section 3.1)."""
    if task.hint is None:
        return ""
    if len(task.responses) == 1:
        return f"\n\nHint: the response is known to be {'good' if task.hint else 'bad'}."
    best = f"Response {order.index(task.hint) + 1}" if task.hint in order else "none of these responses"
    return f"\n\nHint: {best} is known to be the best."


def _segments(task: Task, n: int, max_critique_tokens: int, reading: Reading) -> tuple[Segment, ...]:
    """n: responses shown."""
    scores = Segment(
        "scores",
        lead=_SCORES,
        # "10", a comma, a space and a brace are at most six tokens in any vocabulary that has the digits.
        max_tokens=6 * n + 2,
        pattern=r"(10|[1-9])" + r", (10|[1-9])" * (n - 1) + r"\}",
        expected=reading == "expected",
    )
    if task.principles is not None:
        lead = f"{_PRINCIPLES} {task.principles}{_CRITIQUE}"
        return Segment("critique", lead, max_critique_tokens, _END_OF_CRITIQUE), scores
    half = max_critique_tokens // 2
    critique = Segment("critique", _CRITIQUE, max_critique_tokens - half, _END_OF_CRITIQUE)
    return _principles_segment(half), critique, scores


def _principles_segment(max_tokens: int) -> Segment:
    stops = ("\nAnalysis:", "\n**Analysis", "\n#### Analysis", *_END_OF_CRITIQUE)
    return Segment("principles", _PRINCIPLES, max_tokens, stops)
