"""Text as a careless reader sees it: without the invisible, and with plain letters for those that look like them."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

_DROPPED = {"Mn", "Me", "Cf", "Cn"}
"""Marks on letters, format characters (zero width, bidi), and what is no character yet: some tokenizers drop them."""
_FILLERS = "\u115f\u1160\u3164\uffa0"
"""Letters to Unicode, nothing to the eye."""
_LINE_ENDS = "\r\u2028\u2029"
# Capitals where the small letter looks otherwise.
_LETTERS = {
    "a": "\u0430\u03b1\u0251\u1d00\u13aa",
    "b": "\u0412\u0392\u0299\u0180\u042c\u13cf\u13f4",
    "c": "\u0441\u03f2\u1d04\u2ca5\u13df",
    "d": "\u0501\u1d05\u0111\u13e7\u13a0",
    "e": "\u0435\u03b5\u0454\u04bd\u1d07\u0247\u212e\u13ac",
    "f": "\u03dd\ua730\u0192",
    "g": "\u0261\u0262\u0581\u050d\u13c0",
    "h": "\u04bb\u043d\u0397\u029c\u0570\u0127\u13bb",
    "i": "\u0456\u03b9\u0131\u026a\u0269",
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
    # SentencePiece writes a space so: in its tokenizers (Llama 2, Gemma) the two are one token.
    " ": "\u2581\u2800",
}
_LOOKALIKES = {lookalike: char for char, lookalikes in _LETTERS.items() for lookalike in lookalikes}
_ALPHABETS = (0x1F150, 0x1F170, 0x1F1E6)
"""Where A to Z begin once more, in white on black or as flags, without a compatibility mapping."""


@lru_cache(maxsize=8192)
def plain(character: str) -> str:
    """The letters for which it can be taken: none for what is invisible; line ends of all kinds are "\\n"."""
    if character in _FILLERS:
        return ""
    if character in _LINE_ENDS:
        return "\n"
    if (start := next((start for start in _ALPHABETS if start <= ord(character) < start + 26), None)) is not None:
        return chr(ord("A") + ord(character) - start)
    folded = unicodedata.normalize("NFKD", character)
    seen = (
        _LOOKALIKES.get(c, _LOOKALIKES.get(c.lower(), c))
        for c in folded
        if unicodedata.category(c) not in _DROPPED and c not in _FILLERS
    )
    return "".join(seen)


class _Plain:
    """A table for `str.translate`."""

    def __getitem__(self, code: int) -> str:
        return plain(chr(code))


def seen(text: str) -> str:
    """All characters of the text as `plain` has them."""
    return text.translate(_Plain()) if not text.isascii() or "\r" in text else text
