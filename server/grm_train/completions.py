"""Read a judge's whole completion, which it wrote without our leads and grammars. Pure.

Serving puts the lead of a verdict where the judge writes a mark, and reads what follows. Here the judge wrote the lead
too: we look for the last one, so nothing that it quotes before counts, and read on with the same grammar.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from grm_server.grm.formats import ThoughtFormat
from grm_server.grm.parse import parse
from grm_server.grm.prompts import JudgeFormat
from grm_server.grm.script import Sample
from grm_server.grm.types import Draw, FailureReason, Trajectory
from grm_server.grm.verdicts import verdict_name

_GAP = r"[\s*#]*"
"""Between the words of a lead: white space, or the bold and headings of Markdown."""
_MARKDOWN = re.compile(r"(?:\s*[*#])*")
_WORDS = re.compile(r"\w+|[^\w\s*#]")
_BOX = ["\\", "boxed"]


def read_completion(form: JudgeFormat, completion: str, n: int) -> tuple[float, ...] | FailureReason:
    """(n,): the points of the responses in the order shown, or why there are none. Never raises on any text."""
    answer = _answer(form.file.thought, completion)
    if answer is None:
        return FailureReason.NO_SCORES
    texts: dict[str, str] = {}
    verdicts = form.file.verdicts_on(n)
    # Backwards: a verdict begins at the last lead that stands before the next one's.
    for index in reversed(range(len(verdicts))):
        grammar = form.grammars(n)[index]
        begins = _last(_anchor(verdicts[index].marks, grammar.lead), grammar.between, answer)
        if begins is None:
            return FailureReason.NO_SCORES
        lead, value = begins
        texts[verdict_name(index)] = answer[value:]
        answer = answer[:lead]
    outcome = parse(form.grammars(n), Draw(0, tuple(range(n)), 0), Sample(texts), n)
    if not isinstance(outcome, Trajectory):
        return outcome.reason
    return tuple(point for point in outcome.points if point is not None)


def _answer(thought: ThoughtFormat | None, completion: str) -> str | None:
    """What follows the thought; None if a thought was begun and not closed."""
    if thought is None:
        return completion
    _, closed, answer = completion.partition(thought.closes)
    if closed:
        return answer
    begun = thought.default == "on" or completion.lstrip().startswith(thought.opens.strip())
    return None if begun else completion


@dataclass(frozen=True, slots=True)
class _Anchor:
    """What a verdict begins with."""

    head: re.Pattern[str] | None
    """Its last match is where the verdict begins. None: at the beginning of the answer."""
    rest: re.Pattern[str]
    """What must follow, up to the first value."""


def _last(anchor: _Anchor, between: Sequence[str], text: str) -> tuple[int, int] | None:
    """Where the last lead and the value after it begin.

    between: the literals between the values, which may hold the lead again: <answer>7</answer><answer>4</answer>.
    """
    start = at = 0
    if anchor.head is not None:
        repeated = sum(anchor.head.search(gap) is not None for gap in between)
        spans = deque((match.span() for match in anchor.head.finditer(text)), maxlen=repeated + 1)
        if len(spans) <= repeated:
            return None
        start, at = spans[0]
    rest = anchor.rest.match(text, at)
    return None if rest is None else (start, rest.end())


@lru_cache(maxsize=256)
def _anchor(marks: tuple[str, ...], lead: str) -> _Anchor:
    """The lead; or only its end, from a mark or a box on: "Scores:" before a box is not required.

    A lead without words is that of a verdict that begins at its mark, or with the answer.
    """
    words, marked = _WORDS.findall(lead), [_WORDS.findall(mark) for mark in marks]
    if not words:
        heads = "|".join(_loosely(mark) for mark in marked if mark)
        return _Anchor(re.compile(heads) if heads else None, _MARKDOWN)
    starts = [at for mark in (*marked, _BOX) for at in range(len(words)) if mark and words[at : at + len(mark)] == mark]
    end = words[max(starts, default=0) :]
    if end[: len(_BOX)] == _BOX:
        # A box that is not opened is a verdict too, and cannot be read.
        return _Anchor(re.compile(_loosely(_BOX)), re.compile(_GAP + _loosely(end[len(_BOX) :])))
    return _Anchor(re.compile(_loosely(end)), _MARKDOWN)


def _loosely(words: list[str]) -> str:
    return _GAP.join(map(re.escape, words))
