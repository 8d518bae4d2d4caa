"""Fold text to what a careless reader sees, so `sanitize` and `structure` find disguised markup: drop invisible
characters and replace lookalikes by plain ones."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from itertools import islice

from grm_server.grm.confusables import CONFUSABLES

_DROPPED = {"Mn", "Me", "Cf", "Cn"}
"""Combining marks, format characters (zero width, bidi) and unassigned code points: some tokenizers drop them."""
_FILLERS = "\u115f\u1160\u3164\uffa0"
"""Letters by Unicode category, but invisible."""
_LINE_ENDS = "\r\u2028\u2029"
# What TR39 lacks, or gives as another character. Lower case, and capitals where only the capital is a lookalike.
LETTERS = {
    "a": "\u0430\u03b1\u0251\u1d00\u13aa",
    "b": "\u0412\u0392\u0299\u0180\u042c\u13cf\u13f4",
    "c": "\u0441\u03f2\u1d04\u2ca5\u13df",
    "d": "\u0501\u1d05\u0111\u13e7\u13a0",
    "e": "\u0435\u03b5\u0454\u04bd\u1d07\u0247\u212e\u13ac",
    "f": "\u03dd\ua730\u0192",
    "g": "\u0261\u0262\u0581\u050d\u13c0",
    "h": "\u04bb\u043d\u0397\u029c\u0570\u0127\u13bb",
    "i": "\u0456\u03b9\u0131\u026a\u0269",
    "k": "\u0138\u1d0b",
    "l": "\u04cf\u029f\u01c0\u0142",
    "m": "\u043c\u039c\u1d0d",
    "n": "\u0578\u039d\u0274\u03b7\u043f",
    "o": "\u043e\u03bf\u1d0f\u0585\u00f8",
    "p": "\u0440\u03c1\u1d18",
    "q": "\u051b\ua7af\u0566",
    "r": "\u0433\u0280",
    "s": "\u0455\ua731\u0282",
    "t": "\u0442\u03c4\u1d1b\u0167",
    "u": "\u057d\u1d1c\u03c5",
    "v": "\u03bd\u0475\u1d20",
    "w": "\u051d\u0461\u1d21",
    "x": "\u0445\u03c7",
    "[": "\u3010\u3014\u3016\u3018\u301a\u27e6\u2772\u2045\u298b\u298d\u298f",
    "]": "\u3011\u3015\u3017\u3019\u301b\u27e7\u2773\u2046\u298c\u298e\u2990",
    "{": "\u2774",
    "}": "\u2775",
    "#": "\u266f\u2317\u22d5",
    ":": "\ua789\u02d0\u02f8\u0589\u2236\u05c3",
    ",": "\u201a\u060c\u066b\u3001",
    "\\": "\u2216\u29f5\u29f9",
    # SentencePiece writes a space as U+2581: in its tokenizers (Llama 2, Gemma) both are the same token.
    " ": "\u2581\u2800",
}
_LOOKALIKES = {
    lookalike: char
    for table in (CONFUSABLES, LETTERS)
    for char, lookalikes in table.items()
    for lookalike in lookalikes
}
_SAME_SHAPE = {"i": "[il1|]", "l": "[il1|]", "o": "[o0]"}
"""TR39 has one character for all that look like I, l, 1 or |, and one for O and 0."""
_ALPHABETS = (0x1F150, 0x1F170, 0x1F1E6)
"""Further alphabets A to Z (white on black, flags) that have no compatibility mapping; their first code points."""
_LONGEST = 8
"""Characters that one character folds to at most. U+FDFA would become 18 Arabic letters; units have 6: "rad/s2"."""


@lru_cache(maxsize=8192)
def fold_character(character: str) -> str:
    """The plain characters that it looks like: none if it is invisible, "\\n" for any line end."""
    if character in _FILLERS:
        return ""
    if character in _LINE_ENDS:
        return "\n"
    if (start := next((start for start in _ALPHABETS if start <= ord(character) < start + 26), None)) is not None:
        return chr(ord("A") + ord(character) - start)
    if character in _LOOKALIKES:
        return _LOOKALIKES[character]
    decomposed = unicodedata.normalize("NFKD", character)
    folded = (
        _LOOKALIKES.get(c) or _LOOKALIKES.get(c.lower()) or str(unicodedata.decimal(c, c))
        for c in decomposed
        if unicodedata.category(c) not in _DROPPED and c not in _FILLERS
    )
    return "".join(islice(folded, _LONGEST))


class _FoldTable:
    """`fold_character` as a table for `str.translate`."""

    def __getitem__(self, code: int) -> str:
        return fold_character(chr(code))


def fold(text: str) -> str:
    """The text with each character replaced by `fold_character`."""
    return text.translate(_FoldTable()) if not text.isascii() or "\r" in text else text


def word_pattern(word: str) -> str:
    """A pattern that finds the word in a folded text, whatever its case."""
    return "".join(_SAME_SHAPE.get(char, re.escape(char)) for char in word.lower())
