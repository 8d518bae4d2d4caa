"""Extract the headings, tags and labels of a prompt template, which `sanitize` keeps inserted text from imitating.

They are taken from the template's static text, so a custom template is guarded like the shipped one.
`format_structure` adds what a judge's format has besides its turns: fences, thoughts and verdicts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jinja2 import Environment

from grm_server.grm.lookalikes import fold

ANY_NUMBER, ANY_LETTER, ANY_SCORE = "\ue000", "\ue001", "\ue002"
"""Placeholders in the words and literals of a structure: the number or letter of a response; a number on a scale."""
_INSERTED = "\0"
"""Placeholder for a Jinja expression in the static text."""
_MAX_WORDS = 10
"""A longer line is a sentence, not a heading."""

_WORD = rf"[\w{ANY_NUMBER}{ANY_LETTER}]"
# "#### Principles ####", "=== Rubric ===", "**Rubric**", "--- Rubric", "[User Question]", "## Rubric:".
_HEADING = re.compile(r"\s*(#+|={1,}|\*\*+|--+|__+|~~+|\|\|+|\[+|<<+)\s*(\w.*?)\s*([#=*\-_~|\]>]*)\s*:?\s*")
# "<conversation>" and "</conversation>", with or without attributes; not "<the score of each response>".
_TAG = re.compile(rf"</?([A-Za-z](?:{_WORD}|[:.-])*)(?:\s+[\w:-]+=[^<>\n]*)?\s*/?>")
# "<|User Prompt|>"
_PIPE_TAG = re.compile(r"<\|[^<>|\n]{1,80}\|>")
# "Question:" alone on its line or before an inserted text.
_LABEL = re.compile(rf"\s*(\w[^{_INSERTED}:.!?]*):\s*{_INSERTED}?\s*")
# "[Query]: " and "**Question:** " before an inserted text.
_MARKED_LABEL = re.compile(rf"[^\w{_INSERTED}]+(\w[^{_INSERTED}:.!?]*):[*_]*\s*{_INSERTED}\s*")
_WORDS = re.compile(rf"[{ANY_NUMBER}{ANY_LETTER}]|[^\W_]+")
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


class Literal(NamedTuple):
    """An exact text that steers the judge or its reader: "<|channel|>", "[RESULT]", "[[A]]"."""

    text: str
    """Without white space. Placeholders stand for labels and scores."""
    any_case: bool = True


@dataclass(frozen=True, slots=True)
class Structure:
    """All headings, tags and labels of a template."""

    headings: frozenset[Heading] = frozenset()
    labels: frozenset[tuple[str, ...]] = frozenset()
    """The words of each label, without its colon."""
    literals: frozenset[Literal] = frozenset()
    names: frozenset[tuple[str, ...]] = frozenset()
    """The words of what responses are called, without their numbers: ("assistant",)."""

    def __or__(self, other: Structure) -> Structure:
        return Structure(
            self.headings | other.headings,
            self.labels | other.labels,
            self.literals | other.literals,
            self.names | other.names,
        )


def structure_of(source: str, label: str = _INSERTED) -> Structure:
    """The structure of a Jinja template. Raises TemplateError if the source is not valid Jinja.

    label: stands for expressions that begin with the variable `label`, as `loop` does for a number.
    """
    structure = Structure()
    for text in _static_texts(source, label):
        structure |= structure_of_text(text)
    return structure


def structure_of_text(text: str) -> Structure:
    """The structure of the static text of a template."""
    headings, labels, literals = set[Heading](), set[tuple[str, ...]](), set[Literal]()
    for line in fold(text).splitlines():
        headings.update(Heading(words_of(tag[1]), "<", 1, 1) for tag in _TAG.finditer(line))
        literals.update(Literal("".join(tag[0].split())) for tag in _PIPE_TAG.finditer(line))
        if (heading := _HEADING.fullmatch(line)) and _INSERTED not in line:
            before, words_text, after = heading.groups()
            mark = before[0]
            words = words_of(words_text)
            if words and len(words) <= _MAX_WORDS and not words_text.endswith((".", "!", "?")):
                closing = _CLOSING.get(mark, mark)
                headings.add(Heading(words, mark, len(before), after.count(closing)))
        elif label := _LABEL.fullmatch(line) or _MARKED_LABEL.fullmatch(line):
            labels.update(label_of(label[1]))
    return Structure(frozenset(headings), frozenset(labels), frozenset(literals))


def label_of(text: str) -> set[tuple[str, ...]]:
    """The words of a label; none if the text is a sentence."""
    words = words_of(text)
    return {words} if 0 < len(words) <= _MAX_WORDS else set()


def words_of(text: str) -> tuple[str, ...]:
    return tuple(_WORDS.findall(text.lower()))


def _static_texts(source: str, label: str) -> Iterator[str]:
    """The template without statements and comments, with a placeholder for each expression.

    An expression that begins with a string, such as "Response" if n == 1 else "Responses", shows one of its strings in
    each text.
    """
    parts: list[list[str]] = []
    at_start = False
    strings: list[str] | None = None
    for _, kind, value in Environment(trim_blocks=True, lstrip_blocks=True).lex(source):
        if kind == "data":
            parts.append([value])
        elif kind == "variable_begin":
            at_start, strings = True, None
        elif kind == "string" and (at_start or strings):
            if strings is None:
                parts.append(strings := [])
            strings.append(value[1:-1])
            at_start = False
        elif at_start and kind != "whitespace":
            parts.append([{"label": label, "loop": ANY_NUMBER}.get(value, _INSERTED)])
            at_start = False
    for number in range(max(map(len, parts), default=0)):
        yield "".join(part[min(number, len(part) - 1)] for part in parts)
