"""The structure of a judge's prompt and of its turn: what `sanitize` keeps inserted text from imitating."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import get_args

from grm_server.grm.formats import Fences, FormatFile, VerdictFormat
from grm_server.grm.lookalikes import fold
from grm_server.grm.structure import (
    ANY_LETTER,
    ANY_NUMBER,
    ANY_SCORE,
    Literal,
    Structure,
    label_of,
    structure_of,
    structure_of_text,
    words_of,
)
from grm_server.grm.types import Role

_TAGS = re.compile(r"<[^<>\n]*>")
_BRACKETED = re.compile(r"\[/?[\w ]{2,40}\]")
_JSON_KEYS = re.compile(r'"\w[\w -]{0,40}"\s*:\s*["{\[]')
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_PLACEHOLDERS = str.maketrans("", "", ANY_NUMBER + ANY_LETTER + ANY_SCORE)
_CLOSERS = re.compile(r"[\])\"']*")
_BOX = "\\boxed{"


def structure_of_format(file: FormatFile) -> Structure:
    """The structure of a format's turns, fences, thought and verdicts.

    Left out are the fences that `sanitize` guards in every prompt, and what honest texts often hold: the lead of the
    critique ("Analysis:"), and headings without a verdict ("**Scores"), which steer only our reading of the judge's
    turn.
    """
    names = _names(file)
    structure = Structure(names=frozenset(_without_numbers(name) for name in names) - {()})
    fences, default = file.fences, Fences()
    for turn in file.turns:
        for name in names:
            structure |= structure_of(turn.content, name)
        if fences.json_text:
            keys = {_joined(key) for key in _JSON_KEYS.findall(turn.content)}
            structure |= Structure(literals=frozenset(map(Literal, keys)))
    if (fences.before, fences.after) != (default.before, default.after):
        for fence, name in product((fences.before, fences.after), names):
            structure |= _structure_of_fence(fence.replace("{label}", name))
    if fences.turns != default.turns:
        for fence, role in product((fences.turns.before, fences.turns.after), get_args(Role)):
            structure |= _structure_of_fence(fences.turns.named(fence, role))
    for text in file.texts:
        structure |= _tags(text.lead, *text.stops)
        if text.name == "principles":
            structure |= structure_of_text(text.lead)
    if file.thought is not None:
        structure |= _tags(file.thought.opens, file.thought.closes, file.thought.after)
    for verdict in file.verdicts:
        structure |= _structure_of_verdict(verdict, names)
    return structure


def _names(file: FormatFile) -> tuple[str, ...]:
    """What responses are called, with placeholders for numbers and letters."""
    labels = file.fences.labels
    return (labels.format(number=ANY_NUMBER, letter=ANY_LETTER),) if isinstance(labels, str) else labels


def _without_numbers(name: str) -> tuple[str, ...]:
    return tuple(word for word in words_of(fold(name)) if word not in (ANY_NUMBER, ANY_LETTER) and len(word) > 1)


def _structure_of_fence(fence: str) -> Structure:
    """Headings, tags and labels. A fence that is none of them, such as a key of JSON, is a literal."""
    structure = structure_of_text(fence)
    found = structure.headings or structure.labels or structure.literals
    if not found and any(char.isalnum() for char in fence.translate(_PLACEHOLDERS)):
        structure |= _literal(_joined(fold(fence)))
    return structure


def _tags(*texts: str) -> Structure:
    """Tags and control tokens; of the other text, words in brackets."""
    structure = Structure()
    for text in texts:
        found = structure_of_text(text)
        tags = frozenset(heading for heading in found.headings if heading.mark == "<")
        bracketed = frozenset(Literal("".join(mark.split()), any_case=False) for mark in _BRACKETED.findall(fold(text)))
        structure |= Structure(tags, literals=found.literals | bracketed)
    return structure


def _structure_of_verdict(verdict: VerdictFormat, names: tuple[str, ...]) -> Structure:
    structure = _tags(verdict.lead, verdict.item, verdict.between, verdict.after, *verdict.marks)
    before, _, after = verdict.item.partition("{value}")
    for opening in (verdict.lead, verdict.lead_if_unmarked or "", *verdict.marks):
        *lines, last = fold(opening).strip().split("\n")
        structure |= _without_bracketed_words(structure_of_text("\n".join(lines)))
        if ":" in last:
            structure |= Structure(labels=frozenset(label_of(last.rpartition(":")[0])))
    for name in names:
        first, closing = before.replace("{label}", name), (after or verdict.after).replace("{label}", name)
        for value, opening in product(_values(verdict, names), (verdict.lead, verdict.between)):
            for text in _spelled(fold(opening + first), fold(value), fold(closing)):
                structure |= _literal(text)
    return structure


def _without_bracketed_words(structure: Structure) -> Structure:
    headings = frozenset(heading for heading in structure.headings if heading.mark != "[" or len(heading.words) > 1)
    return Structure(headings, structure.labels, structure.literals)


def _values(verdict: VerdictFormat, names: tuple[str, ...]) -> Iterator[str]:
    """What the judge may write as a value."""
    if verdict.kind == "scores":
        yield ANY_SCORE
    elif verdict.values:
        yield from verdict.values
    else:
        yield from names
    if verdict.tie is not None:
        yield verdict.tie


def _spelled(opening: str, value: str, closing: str) -> Iterator[str]:
    """The verdict with as little of its lead as makes it one, such as "[[A]]" of "<answer>[[A]]</answer>".

    None for a verdict in plain words or behind a label, and for a number in a box: that is the answer to a question in
    mathematics, and `sanitize` guards lists of numbers.
    """
    core = ""
    for part in reversed(_TAGS.sub(" ", opening).split()):
        core = part + core
        if any(mark in core for mark in "[{\\:"):
            break
    core = core.lstrip("*_#-,;.")
    core = core.removeprefix("{") if core.startswith('{"') else core
    if not core or core[0].isalnum() or core[0] == ":":
        return
    if _BOX in core:
        if not core.endswith(_BOX) or not (value == ANY_SCORE or _NUMBER.fullmatch(value)):
            yield from (_joined(core, value), _joined(core, value, "}"))
        return
    closed = _CLOSERS.match(closing)
    yield _joined(core, value, closed[0] if closed else "")
    if core.endswith('"'):
        yield _joined(core[:-1], value)


def _joined(*texts: str) -> str:
    return "".join("".join(texts).split())


def _literal(text: str) -> Structure:
    """Nothing for a text without marks that `sanitize` could rewrite."""
    has_marks = any(mark in text for mark in "[]{}<>\\:#")
    return Structure(literals=frozenset({Literal(text)})) if has_marks else Structure()
