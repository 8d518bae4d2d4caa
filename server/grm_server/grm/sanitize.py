"""Neutralize text that imitates the prompt's structure, before `prompts` inserts it into a template.

Responses come from a policy that is trained against the judge, so they may be hostile. Text that could pass for a part
of the prompt's structure is rewritten: it stays legible, but is no longer structure. The search runs on the text as a
careless reader sees it (`lookalikes.fold`). Only the marks found are rewritten; the rest of the text stays as it is.
"""

from __future__ import annotations

import re

from grm_server.grm.imitations import imitations
from grm_server.grm.lookalikes import fold, fold_character
from grm_server.grm.slices import SLICE_CHARS, Slices, T
from grm_server.grm.structure import Structure

# Control characters except tab and line ends. They are invisible, and some tokenizers drop them silently.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

_REPLACEMENTS = {"[": "(", "]": ")", "<": "(", ">": ")", "#": "=", ":": " -", "\\": "", "{": "(", "}": ")"}
"""Replacement of each mark. The other heading marks (=, *, -, _, ~, |) are dropped."""
_COLLAPSING = "#=*-_~|"
"""Marks that collapse: a run of one of them gets a single replacement."""


def run(slices: Slices[T]) -> T:
    """The result of the work, without a pause."""
    while True:
        try:
            next(slices)
        except StopIteration as finished:
            result: T = finished.value
            return result


def neutralize(text: str, structure: Structure) -> str:
    """The text, still legible, with every imitation of this template's structure rewritten.

    Control characters are always removed. Text that imitates nothing is otherwise returned unchanged.
    """
    return run(neutralizing(text, structure))


def neutralizing(text: str, structure: Structure, slice_chars: int = SLICE_CHARS) -> Slices[str]:
    """`neutralize` in slices: four million characters take seconds. The result does not depend on `slice_chars`."""
    pieces: list[tuple[str, str]] = []
    for start in range(0, len(text), slice_chars):
        piece = _CONTROL.sub("", text[start : start + slice_chars])
        pieces.append((piece, piece if piece.isascii() and "\r" not in piece else fold(piece)))
        yield len(piece)
    folded = "".join(folded for _, folded in pieces)
    hostile = yield from imitations(folded, structure, slice_chars)
    if not hostile:
        return "".join(piece for piece, _ in pieces)
    rewritten: list[str] = []
    position = 0
    for piece, folded_piece in pieces:
        end = position + len(folded_piece)
        if hostile.find(1, position, end) >= 0:
            piece = _rewritten(piece, position, folded, hostile)
            yield len(piece)
        rewritten.append(piece)
        position = end
    return "".join(rewritten)


def _rewritten(piece: str, position: int, folded: str, hostile: bytearray) -> str:
    """A piece of the text, folded to `folded[position:...]`, with its hostile characters replaced."""
    chars: list[str] = []
    at = position
    for char in piece:
        shown = char
        for _ in fold_character(char):
            if hostile[at]:
                repeats = at and hostile[at - 1] and folded[at - 1] == folded[at] in _COLLAPSING
                shown = "" if repeats else _REPLACEMENTS.get(folded[at], "")
            at += 1
        chars.append(shown)
    return "".join(chars)
