"""What the judge is asked: a task and an order become a script.

The markers and the three output lines are the interface of the released DeepSeek-GRM checkpoints; the wording around
them is ours, and a template file of the user's own may replace it.

Every inserted text is hostile: responses come from a policy that is trained against this judge. Texts are sanitized
(`sanitize`) and substituted in one pass, so no response can close its fence, open a section, or plant a verdict for the
judge to copy. The engine, which knows the tokenizer, neutralizes the special tokens of the chat template.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from typing import NewType

from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from grm_server.grm.sanitize import neutralize
from grm_server.grm.structure import structure_of
from grm_server.grm.types import Message, Order, Reading, Script, Segment, Task

# What the judge is given before it writes each part: the three lines of the released checkpoints.
_PRINCIPLES, _CRITIQUE, _SCORES = "Specific Criteria:", "\nAnalysis:", "\nScores: \\boxed{"

_END_OF_CRITIQUE = ("\nScores:", "\n**Scores", "\n#### Scores")

Sanitized = NewType("Sanitized", Task)
"""A task whose texts can be shown to a judge."""


class JudgeTemplate:
    """The user turn of a judge's or a meta RM's prompt, in Jinja.

    Variables: `conversation`, `responses` (fenced blocks), `reference`, `principles` (text or None), `n`.
    """

    def __init__(self, source: str, *, principles: bool = True) -> None:
        """Raise ValueError unless the template shows all that it is given, once each, and the responses last.

        principles: whether it shows them. To a meta RM it does not: it finds them in the judge's turn.
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
        prompt = self.render(Sanitized(task), tuple(range(n)))
        given = [text for text in ("PROBE-QUERY", reference, principles) if text is not None]
        for text in (*given, *responses):
            if prompt.count(text) != 1:
                raise ValueError(f"template: {text.split('-')[1].lower()} must be shown exactly once (n = {n})")
        if "None" in prompt:
            raise ValueError("template: a reference or principles that are absent are shown as None; use {% if ... %}")
        if max(map(prompt.index, given)) > prompt.index("PROBE-RESPONSE"):
            raise ValueError("template: the responses must come last, so that all orders share what stands before")

    def render(self, task: Sanitized, order: tuple[int, ...]) -> str:
        """The prompt that shows `task.responses[order[p]]` at position p."""
        return self._template.render(
            conversation=_conversation(task.query),
            responses="\n".join(_fenced(f"Response {p + 1}", task.responses[i]) for p, i in enumerate(order)),
            reference=task.reference,
            principles=task.principles,
            n=len(order),
        )


class PrinciplesTemplate:
    """The user turn that asks for principles before there are responses, in Jinja.

    Variables: `conversation`, `reference` (text or None).
    """

    def __init__(self, source: str, judge: JudgeTemplate) -> None:
        """judge: shows the principles later, so they may not imitate its structure either.

        Raise TemplateError for a source that is not Jinja.
        """
        self._template = _compiled(source)
        self.structure = structure_of(source) | judge.structure

    def render(self, task: Sanitized) -> str:
        return self._template.render(conversation=_conversation(task.query), reference=task.reference)


def sanitized(task: Task, template: JudgeTemplate | PrinciplesTemplate) -> Sanitized:
    """The task with nothing in its texts that could pass for structure of the template that will show it."""

    def safe(text: str) -> str:
        return neutralize(text, template.structure)

    return Sanitized(
        Task(
            query=tuple(Message(message.role, safe(message.content)) for message in task.query),
            responses=tuple(map(safe, task.responses)),
            reference=None if task.reference is None else safe(task.reference),
            principles=None if task.principles is None else safe(task.principles),
            hint=task.hint,
        )
    )


def _compiled(source: str) -> Template:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(source)


def _fenced(label: str, text: str) -> str:
    return f"[The Begin of {label}]\n{text}\n[The End of {label}]"


def _conversation(query: tuple[Message, ...]) -> str:
    """A lone user turn as it is, as the released checkpoints were trained to see it; more turns fenced by role."""
    if len(query) == 1 and query[0].role == "user":
        return query[0].content
    return "\n".join(_fenced(f"{message.role.capitalize()} Turn", message.content) for message in query)


def write_script(
    template: JudgeTemplate, task: Sanitized, order: Order, max_critique_tokens: int, reading: Reading = "sampled"
) -> Script:
    """What the judge is to write on the responses that the order shows: principles (unless given), critique, scores.

    The scores are written under a constraint, after the critique ended, by itself or at its budget, so they always
    parse; and only what stands after our own lead is read as the verdict, so nothing that the judge quotes can be taken
    for it.
    """
    prompt = template.render(task, order) + _hint(task, order)
    return Script(prompt, _segments(task, len(order), max_critique_tokens, reading))


def write_principles_script(template: PrinciplesTemplate, task: Task, max_tokens: int) -> Script:
    """What the judge is to write on a query alone: the principles that it would write first in every sample.

    It is shown the task's query and reference, sanitized.
    """
    asked = sanitized(Task(task.query, (), task.reference), template)
    return Script(template.render(asked), (_principles_segment(max_tokens),))


def judge_turn(principles: str, critique: str, shown: Iterable[int]) -> str:
    """All that a judge says in one sample, the leads that it was given included, as the released checkpoints write it.

    shown: scores in the order shown.
    """
    scores = ", ".join(map(str, shown))
    return f"{_PRINCIPLES} {principles}{_CRITIQUE} {critique}{_SCORES}{scores}}}"


def _hint(task: Sanitized, order: Order) -> str:
    """For an item that the judge never gets right (Liu et al. 2025, section 3.1: hinted sampling)."""
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
        # "10", a comma, a space and a brace are six tokens at most in any vocabulary that has the digits.
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
