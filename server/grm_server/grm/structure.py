"""What a prompt template is made of: its headings, tags and labels, which no inserted text may imitate.

They are read from the template's own static text, so a template of the user's own is guarded like the shipped one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from jinja2 import Environment

from grm_server.grm.lookalikes import seen

_INSERTED = "\0"
"""Stands for a Jinja expression in the static text."""
_MAX_WORDS = 10
"""A longer line is a sentence, not a heading."""

# "#### Principles ####", "=== Rubric ===", "**Rubric**", "--- Rubric", "[User Question]", "## Rubric:".
_HEADING = re.compile(r"\s*(#+|=={1,}|\*\*+|--+|__+|~~+|\|\|+|\[+|<<+)\s*(\w.*?)\s*([#=*\-_~|\]>]*)\s*:?\s*")
# "<conversation>" and "</conversation>", also with attributes; not "<the score of each response>".
_TAG = re.compile(r"</?([A-Za-z][\w:.-]*)(?:\s+[\w:-]+=[^<>\n]*)?\s*/?>")
# "Question:" alone on its line or before what is inserted.
_LABEL = re.compile(rf"\s*(\w[^{_INSERTED}:.!?]*):\s*{_INSERTED}?\s*")
_CLOSING = {"[": "]", "<": ">"}


class Heading(NamedTuple):
    """A line or tag that divides the prompt."""

    words: tuple[str, ...]
    """As `lookalikes.seen` folds them."""
    mark: str
    """The character that it is decorated with: "#", "=", "<", ..."""
    before: int
    after: int
    """How many of the marks (of the closing ones, for brackets) stand on each side."""

    @property
    def closing(self) -> str:
        """The mark on its right side."""
        return _CLOSING.get(self.mark, self.mark)


@dataclass(frozen=True, slots=True)
class Structure:
    """The structure of a template."""

    headings: frozenset[Heading] = frozenset()
    labels: frozenset[tuple[str, ...]] = frozenset()
    """The words of each line that ends in a colon."""

    def __or__(self, other: Structure) -> Structure:
        return Structure(self.headings | other.headings, self.labels | other.labels)


def structure_of(source: str) -> Structure:
    """The structure of a Jinja template. Raises TemplateError for one that is not Jinja."""
    headings, labels = set[Heading](), set[tuple[str, ...]]()
    for line in seen(_static_text(source)).splitlines():
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
    """The template without its statements and comments, and with a placeholder for each expression."""
    parts: list[str] = []
    for _, kind, value in Environment(trim_blocks=True, lstrip_blocks=True).lex(source):
        if kind == "data":
            parts.append(value)
        elif kind == "variable_begin":
            parts.append(_INSERTED)
    return "".join(parts)


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", text.lower()))
