"""Hostile text made harmless before a judge reads it: responses come from a policy that is trained against the judge.

Whatever could pass for a part of the prompt's structure is rewritten: it stays legible, but is no longer structure. The
search runs on the text as a careless reader sees it (`lookalikes.seen`); the rewriting touches only the marks that it
found, and leaves the rest of the text as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from grm_server.grm.lookalikes import plain, seen
from grm_server.grm.structure import Heading, Structure

# Control characters except tab and line ends. No reader sees them, and some tokenizers drop them silently.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

# Each repeat is bounded, or is possessive and starts where no other match can, so a long run costs linear time. The
# groups hold the marks to rewrite.
_BEFORE = r"(?:\A|(?<=[^\W_]))([\W_]*+)"
_GAP = r"[\W_]*+"
_FENCE = re.compile(rf"{_BEFORE}the{_GAP}(?:begin|end)(?:(?=of)|(?![^\W\d_]))", re.IGNORECASE)
# A label at the start of a line, under any markup.
_LINE_START = r"(?:\A|(?<=\n))(?:[^\w\n]|_)*+"
_COLON = r"(?:[^\w:]|_){0,16}(:)"
# A list of numbers with any markup, also if it is never closed. A lone number, and one with its thousands apart, is an
# answer to a question in mathematics; it stays.
_BOX = re.compile(
    r"(\\\s{0,4}boxed[\s{]{0,16}\{)\s*+(?!\d{1,3}(?:,\d{3})+(?:\.\d*)?\s*\})"
    r"[\d.+*_`~-][\s\d.+*_`~-]*[,;][\s\d.,;+*_`~-]*((?:[}\s]{0,16}\})?)(?:(?<=\})|\Z|(?=[\n\\]))",
    re.IGNORECASE,
)
_HARMLESS = {"[": "(", "]": ")", "<": "(", ">": ")", "#": "=", ":": " -", "\\": "", "{": "(", "}": ")"}
"""What a mark becomes. The other marks of headings (=, *, -, _, ~, |) are dropped."""
_RUNS = "#=*-_~|"
"""Marks of which a run becomes one."""
_TAG_OPENS = re.compile(r"<\s{0,4}/?\s{0,4}\Z")
_VERDICT_LABEL = ("scores",)
"""The label of the verdict's line, which the judge writes and no template has to show."""


def neutralize(text: str, structure: Structure) -> str:
    """The text, still legible, with everything harmless that could pass for structure of this template.

    Control characters always go. Text without anything hostile is otherwise left as it is.
    """
    text = _CONTROL.sub("", text)
    shown = text if text.isascii() and "\r" not in text else seen(text)
    hostile = {at for marks, start, end in _hostile(shown, structure) for at in range(start, end) if shown[at] in marks}
    if not hostile:
        return text
    # The character of `text` that each character of `shown` comes from.
    origin = range(len(text)) if shown is text else [at for at, one in enumerate(text) for _ in plain(one)]
    changed = {
        origin[at]: "" if at - 1 in hostile and shown[at - 1] == shown[at] in _RUNS else _HARMLESS.get(shown[at], "")
        for at in sorted(hostile)
    }
    return "".join(changed.get(at, one) for at, one in enumerate(text))


def _hostile(shown: str, structure: Structure) -> Iterator[tuple[str, int, int]]:
    """(marks, start, end) of each stretch of the text whose marks make it look like structure."""
    for match in _FENCE.finditer(shown):
        start, end = match.span(1)
        # A bracket that closes again before the words is no part of a fence: "- [ ] The end".
        yield "[", max(start, shown.rfind("]", start, end) + 1), end
    headings, labels = _patterns(structure)
    if headings is not None:
        pattern, by_words = headings
        for match in pattern.finditer(shown):
            for heading in by_words.get("".join(re.findall(r"[^\W_]+", match["words"].lower())), ()):
                if _imitates(heading, match[1], match["after"], followed=bool(match["next"])):
                    yield from ((heading.mark + heading.closing, *match.span(group)) for group in (1, "after"))
    for match in labels.finditer(shown):
        yield ":", *match.span(1)
    for match in _BOX.finditer(shown):
        yield from (("\\{}", *match.span(group)) for group in (1, 2))


def _imitates(heading: Heading, before: str, after: str, *, followed: bool) -> bool:
    """Whether marks around the heading's words make them look like it. followed: by a word on the same line.

    As the template writes it, with half of its marks or more; or alone on its line under as many marks. A tag needs no
    more than its opening bracket.
    """
    if heading.mark == "<":
        return _TAG_OPENS.search(before) is not None and (bool(after) or not followed)
    enough = max(1 if heading.mark in "#[<" else 2, heading.before // 2)
    marks = before.count(heading.mark)
    if heading.after and marks >= enough and after.count(heading.closing) >= max(1, heading.after // 2):
        return True
    return not followed and marks >= (heading.before if heading.after else enough)


@lru_cache(maxsize=16)
def _patterns(
    structure: Structure,
) -> tuple[tuple[re.Pattern[str], dict[str, list[Heading]]] | None, re.Pattern[str]]:
    """What finds the words of a heading, with the headings by their joined words; and what finds labels."""
    labels = "|".join(_alternatives({_VERDICT_LABEL, *structure.labels}))
    label_pattern = re.compile(rf"{_LINE_START}(?:{labels}){_COLON}", re.IGNORECASE)
    if not structure.headings:
        return None, label_pattern
    by_words: dict[str, list[Heading]] = {}
    for heading in sorted(structure.headings):
        by_words.setdefault("".join(heading.words), []).append(heading)
    words = "|".join(_alternatives({heading.words for heading in structure.headings}))
    pattern = rf"{_BEFORE}(?P<words>{words})(?=(?P<after>(?:[^\w\n]|_)*+)(?P<next>\w?))"
    return (re.compile(pattern, re.IGNORECASE), by_words), label_pattern


def _alternatives(every: set[tuple[str, ...]]) -> list[str]:
    """Patterns of these words with any gap between, longest first, since an alternation takes the first that fits."""
    ordered = sorted(every, key=lambda words: (-sum(map(len, words)), words))
    return [_GAP.join(map(re.escape, words)) for words in ordered]
