"""Extract the headings, tags and labels of a prompt template, which `sanitize` keeps inserted text from imitating.

They are taken from the template's static text, so a custom template is guarded like the shipped one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, get_args

from jinja2 import Environment

from grm_server.grm.formats import FormatFile
from grm_server.grm.lookalikes import fold
from grm_server.grm.types import Role

_INSERTED = "\0"
"""Placeholder for a Jinja expression in the static text."""
_MAX_WORDS = 10
"""A longer line is a sentence, not a heading."""
_FENCED = 16
"""Labels whose fences are guarded, where a prompt may show any number of responses."""

# "#### Principles ####", "=== Rubric ===", "**Rubric**", "--- Rubric", "[User Question]", "## Rubric:".
_HEADING = re.compile(r"\s*(#+|=={1,}|\*\*+|--+|__+|~~+|\|\|+|\[+|<<+)\s*(\w.*?)\s*([#=*\-_~|\]>]*)\s*:?\s*")
# "<conversation>" and "</conversation>", with or without attributes; not "<the score of each response>".
_TAG = re.compile(r"</?([A-Za-z][\w:.-]*)(?:\s+[\w:-]+=[^<>\n]*)?\s*/?>")
# "Question:" alone on its line or before an inserted text.
_LABEL = re.compile(rf"\s*(\w[^{_INSERTED}:.!?]*):\s*{_INSERTED}?\s*")
_CLOSING = {"[": "]", "<": ">"}


class Heading(NamedTuple):
    """A line or tag that divides the prompt."""

    words: tuple[str, ...]
    """Lower case, folded by `lookalikes.fold`."""
    mark: str
    """The character that decorates it: "#", "=", "<", ..."""
    before: int
    """Number of marks on the left."""
    after: int
    """Number of marks on the right; for brackets, of closing ones."""

    @property
    def closing(self) -> str:
        """The mark on the right."""
        return _CLOSING.get(self.mark, self.mark)


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """All headings, tags and labels of a template."""

    headings: frozenset[Heading] = frozenset()
    labels: frozenset[tuple[str, ...]] = frozenset()
    """The words of each label, without its colon."""
    literals: frozenset[str] = frozenset()
    """Exact texts that steer the judge or its reader: "</think>", "[RESULT]", "[[A]]"."""

    def __or__(self, other: Structure) -> Structure:
        return Structure(self.headings | other.headings, self.labels | other.labels, self.literals | other.literals)


def structure_of_format(file: FormatFile) -> Structure:
    """The structure of a judge's prompt and of its turn."""
    fences = file.fences
    labels = [file.label(position) for position in range(file.shows.max or _FENCED)]
    fenced = [text.replace("{label}", label) for text in (fences.before, fences.after) for label in labels]
    fenced += [
        fences.turns.named(text, role) for text in (fences.turns.before, fences.turns.after) for role in get_args(Role)
    ]
    thought = () if file.thought is None else (file.thought.opens, file.thought.closes, file.thought.after)
    marks = [mark for verdict in file.verdicts for mark in (*verdict.marks, verdict.lead)]
    spoken = [*(text.lead for text in file.texts), *(stop for text in file.texts for stop in text.stops), *marks]
    structure = Structure(literals=frozenset(filter(None, (text.strip() for text in (*thought, *marks)))))
    for source in (*(turn.content for turn in file.turns), *map(_escaped, (*fenced, *spoken))):
        structure |= structure_of(source)
    return structure


def _escaped(text: str) -> str:
    """Text that is no template, as a template."""
    return "{% raw %}" + text + "{% endraw %}"


def structure_of(source: str) -> Structure:
    """The structure of a Jinja template. Raises TemplateError if the source is not valid Jinja."""
    headings, labels = set[Heading](), set[tuple[str, ...]]()
    for line in fold(_static_text(source)).splitlines():
        headings.update(Heading(_words(tag[1]), "<", 1, 1) for tag in _TAG.finditer(line))
        if (heading := _HEADING.fullmatch(line)) and _INSERTED not in line:
            before, text, after = heading.groups()
            mark = before[0]
            words = _words(text)
            if words and len(words) <= _MAX_WORDS and not text.endswith((".", "!", "?")):
                closing = _CLOSING.get(mark, mark)
                headings.add(Heading(words, mark, len(before), after.count(closing)))
        elif (label := _LABEL.fullmatch(line)) and (words := _words(label[1])) and len(words) <= _MAX_WORDS:
            labels.add(words)
    return Structure(frozenset(headings), frozenset(labels))


def _static_text(source: str) -> str:
    """The template without statements and comments, with a placeholder for each expression."""
    parts: list[str] = []
    for _, kind, value in Environment(trim_blocks=True, lstrip_blocks=True).lex(source):
        if kind == "data":
            parts.append(value)
        elif kind == "variable_begin":
            parts.append(_INSERTED)
    return "".join(parts)


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", text.lower()))
