"""Hostile text made harmless before a judge reads it: responses come from a policy that is trained against the judge.

What could pass for a part of the prompt's structure is rewritten so that it stays legible and is no longer that. It is
looked for in the text as a careless reader sees it (`lookalikes.seen`), and rewritten where it stands: the rest of the
text is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from grm_server.grm.lookalikes import plain, seen

SECTIONS = (
    "Evaluation Criteria",
    "Conversation Context",
    "Principles",
    "Reference Answer",
    "Responses to be Scored",
    "Output Format Requirements",
)

# Control characters but tab and line ends. No reader sees them, and some tokenizers drop them without a word.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

# Every repeat is bounded, or possessive and begins where no other match can: a long run costs linear time. What is
# rewritten stands in the groups.
_BEFORE = r"(?:\A|(?<=[^\W_]))([\W_]*+)"
_GAP = r"[\W_]*+"
_FENCE = re.compile(rf"{_BEFORE}the{_GAP}(?:begin|end)(?:(?=of)|(?![^\W\d_]))", re.IGNORECASE)
_SECTION = re.compile(
    rf"{_BEFORE}(?:{'|'.join(SECTIONS).replace(' ', _GAP)})(?=((?:[^\w\n]|_)*+)(\w?))",
    re.IGNORECASE,
)
# At the start of a line, under any markup.
_LABEL = re.compile(r"(?:\A|(?<=\n))(?:[^\w\n]|_)*+scores(?:[^\w:]|_){0,16}(:)", re.IGNORECASE)
# A list of numbers, with any markup, also if it is never closed. A lone number, and one with its thousands apart, is an
# answer to a question in mathematics; it stays.
_BOX = re.compile(
    r"(\\\s{0,4}boxed[\s{]{0,16}\{)\s*+(?!\d{1,3}(?:,\d{3})+(?:\.\d*)?\s*\})"
    r"[\d.+*_`~-][\s\d.+*_`~-]*[,;][\s\d.,;+*_`~-]*((?:[}\s]{0,16}\})?)(?:(?<=\})|\Z|(?=[\n\\]))",
    re.IGNORECASE,
)
_HARMLESS = {"[": "(", "#": "=", ":": " -", "\\": "", "{": "(", "}": ")"}


def defuse(text: str) -> str:
    """The text with all that could pass for a part of the prompt's structure made harmless, and still legible.

    Control characters always go. Text without anything hostile is otherwise left as it is.
    """
    text = _CONTROL.sub("", text)
    shown = seen(text)
    hostile = {at for marks, start, end in _hostile(shown) for at in range(start, end) if shown[at] in marks}
    if not hostile:
        return text
    # Which character each one of `shown` comes from.
    origin = range(len(text)) if shown is text else [at for at, one in enumerate(text) for _ in plain(one)]
    # Of several hashes in a row one is left.
    changed = {
        origin[at]: "" if shown[at] == "#" and at - 1 in hostile and shown[at - 1] == "#" else _HARMLESS[shown[at]]
        for at in sorted(hostile)
    }
    return "".join(changed.get(at, one) for at, one in enumerate(text))


def _hostile(shown: str) -> Iterator[tuple[str, int, int]]:
    """Which marks, and from where to where, make a part of the prompt's structure of the text."""
    for match in _FENCE.finditer(shown):
        start, end = match.span(1)
        # What is closed again before the words is no part of a fence: "- [ ] The end".
        yield "[", max(start, shown.rfind("]", start, end) + 1), end
    for match in _SECTION.finditer(shown):
        before, after = match[1].count("#"), match[2].count("#")
        # As the template writes it, or alone on its line under as many hashes.
        if before >= 2 <= after or (before >= 4 and not match[3]):
            yield from (("#", *match.span(group)) for group in (1, 2))
    for match in _LABEL.finditer(shown):
        yield ":", *match.span(1)
    for match in _BOX.finditer(shown):
        yield from (("\\{}", *match.span(group)) for group in (1, 2))
