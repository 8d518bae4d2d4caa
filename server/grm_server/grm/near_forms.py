"""Find text that is not the prompt's structure to the letter, but could pass for it: other words for a fence, other
headings in the template's style, and the lines of the prompt that no template contains (hint and leads)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from grm_server.grm.lookalikes import word_pattern
from grm_server.grm.structure import Heading, Structure

# Possessive or bounded, as in `sanitize`, so a long run takes linear time.
_GAP = r"[\W_]*+"
_BEFORE = r"(?:\A|(?<=[^\W_]))([\W_]*+)"
_LINE_START = r"(?:\A|(?<=\n))(?:[^\w\n]|_)*+"
_COLON = r"(?:[^\w:]|_){0,16}(:)"


def _any_of(*words: str) -> str:
    return f"(?:{'|'.join(map(word_pattern, words))})"


_EDGE = "(?:(?:beg[il1|]n(?:n[il1|]ng)?|start(?:[il1|]ng)?|end(?:[il1|]ng)?|c[il1|][o0]s(?:e|[il1|]ng))s?)"
_SHOWN = rf"(?:{_any_of('response', 'answer')}|{_any_of('user', 'assistant', 'system', 'developer', 'tool')}{_GAP}turn)"
_THE = rf"(?:the{_GAP})?"
# "[The Beginning of Response 2]", "[End of Response 1]", "[Response 1 ends]".
_FENCE = re.compile(
    rf"{_BEFORE}{_THE}(?:{_EDGE}{_GAP}(?:{word_pattern('of')}{_GAP})?{_THE}{_SHOWN}|{_SHOWN}[\W_\d]*+{_EDGE}(?!\w))",
    re.IGNORECASE,
)
# The hint of `prompts`, "Hint: Response 2 is known to be the best.". Other hints stay.
_HINT = re.compile(
    rf"{_LINE_START}{word_pattern('hint')}{_COLON}"
    rf"(?=[^\n]{{0,60}}?(?:{word_pattern('response')}|kn[o0]wn{_GAP}t[o0]{_GAP}be))",
    re.IGNORECASE,
)
# "Analysis:" is an ordinary label, unless another lead of the judge's turn is in the same text.
_OTHER_LEADS = re.compile(
    rf"{_LINE_START}(?:{word_pattern('specific')}{_GAP}{word_pattern('criteria')}|{word_pattern('scores')}){_COLON}",
    re.IGNORECASE,
)
_ANALYSIS = re.compile(rf"{_LINE_START}{word_pattern('analysis')}{_COLON}", re.IGNORECASE)
_MIN_MARKS = 3
"""A line between fewer marks on both sides is not distinctive: "**Summary**"."""
_EMPHASIS = "*_"


def near_forms(folded: str, structure: Structure) -> Iterator[tuple[str, int, int]]:
    """(marks, start, end) of each span of the folded text whose marks make it look like structure."""
    for match in _FENCE.finditer(folded):
        start, end = match.span(1)
        # As in `sanitize`: a bracket that closes again is not part of a fence.
        yield "[", max(start, folded.rfind("]", start, end) + 1), end
    for match in _HINT.finditer(folded):
        yield ":", *match.span(1)
    if _OTHER_LEADS.search(folded):
        for match in _ANALYSIS.finditer(folded):
            yield ":", *match.span(1)
    for heading, pattern in _styles(structure):
        for match in pattern.finditer(folded):
            end = tail = match.end()
            while not folded[tail - 1].isalnum():
                tail -= 1
            if folded.count(heading.closing, tail, end) >= heading.after:
                yield heading.mark, *match.span(1)
                yield heading.closing, tail, end


@lru_cache(maxsize=16)
def _styles(structure: Structure) -> tuple[tuple[Heading, re.Pattern[str]], ...]:
    """The styles of the template's headings between marks, each as one heading, with a pattern of lines that begin with
    its marks. Any line in such a style looks like a heading, whatever its words."""
    styles = dict[str, Heading]()
    for heading in sorted(structure.headings):
        if min(heading.before, heading.after) >= _MIN_MARKS and heading.mark not in _EMPHASIS:
            styles.setdefault(heading.mark, heading)
    return tuple((style, _line_in(style)) for style in styles.values())


def _line_in(style: Heading) -> re.Pattern[str]:
    other = rf"(?:[^\w\n{re.escape(style.mark)}]|_)*+"
    marks = rf"{other}(?:{re.escape(style.mark)}{other}){{{style.before},}}+"
    return re.compile(rf"(?:\A|(?<=\n))({marks})[^\W_][^\n]*+")
