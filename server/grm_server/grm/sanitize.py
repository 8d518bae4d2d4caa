"""Neutralize text that imitates the prompt's structure, before `prompts` inserts it into a template.

Responses come from a policy that is trained against the judge, so they may be hostile. Text that could pass for a part
of the prompt's structure is rewritten: it stays legible, but is no longer structure. The search runs on the text as a
careless reader sees it (`lookalikes.fold`). Only the marks found are rewritten; the rest of the text stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from grm_server.grm.lookalikes import fold, fold_character, word_pattern
from grm_server.grm.structure import Heading, Structure

# Control characters except tab and line ends. They are invisible, and some tokenizers drop them silently.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

# Each repetition is bounded, or is possessive and starts where no other match can, so a long run takes linear time. The
# groups hold the marks to rewrite.
_BEFORE = r"(?:\A|(?<=[^\W_]))([\W_]*+)"
_GAP = r"[\W_]*+"
_FENCE = re.compile(rf"{_BEFORE}the{_GAP}(?:beg[il1|]n|end)(?:(?=[o0]f)|(?![^\W\d_]))", re.IGNORECASE)
# The start of a line before a label, including any markup.
_LINE_START = r"(?:\A|(?<=\n))(?:[^\w\n]|_)*+"
_COLON = r"(?:[^\w:]|_){0,16}(:)"
# A boxed list of numbers with any markup, even if the box is never closed. A single number, also with thousands
# separators, stays: it is the answer to a question in mathematics.
_BOX = re.compile(
    r"(\\\s{0,4}boxed[\s{]{0,16}\{)\s*+(?!\d{1,3}(?:,\d{3})+(?:\.\d*)?\s*\})"
    r"[\d.+*_`~-][\s\d.+*_`~-]*[,;][\s\d.,;+*_`~-]*((?:[}\s]{0,16}\})?)(?:(?<=\})|\Z|(?=[\n\\]))",
    re.IGNORECASE,
)
_REPLACEMENTS = {"[": "(", "]": ")", "<": "(", ">": ")", "#": "=", ":": " -", "\\": "", "{": "(", "}": ")"}
"""Replacement of each mark. The other heading marks (=, *, -, _, ~, |) are dropped."""
_COLLAPSING = "#=*-_~|"
"""Marks that collapse: a run of one of them gets a single replacement."""
_TAG_OPENS = re.compile(r"<\s{0,4}/?\s{0,4}\Z")
_LEAD_LABELS = (("specific", "criteria"), ("scores",))
"""The labels of the judge's principles and verdict. The judge writes them, so a template need not contain them."""


def _any_of(*words: str) -> str:
    return f"(?:{'|'.join(map(word_pattern, words))})"


_EDGE = "(?:(?:beg[il1|]n(?:n[il1|]ng)?|start(?:[il1|]ng)?|end(?:[il1|]ng)?|c[il1|][o0]s(?:e|[il1|]ng))s?)"
_SHOWN = rf"(?:{_any_of('response', 'answer')}|{_any_of('user', 'assistant', 'system', 'developer', 'tool')}{_GAP}turn)"
_THE = rf"(?:the{_GAP})?"
# "[The Beginning of Response 2]", "[End of Response 1]", "[Response 1 ends]".
_NEAR_FENCE = re.compile(
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


def neutralize(text: str, structure: Structure) -> str:
    """The text, still legible, with every imitation of this template's structure rewritten.

    Control characters are always removed. Text that imitates nothing is otherwise returned unchanged.
    """
    text = _CONTROL.sub("", text)
    folded = text if text.isascii() and "\r" not in text else fold(text)
    hostile = {
        at for marks, start, end in _imitations(folded, structure) for at in range(start, end) if folded[at] in marks
    }
    if not hostile:
        return text
    # For each character of `folded`, the index of the character of `text` that it comes from.
    origin = range(len(text)) if folded is text else [at for at, char in enumerate(text) for _ in fold_character(char)]
    changed: dict[int, str] = {}
    for at in sorted(hostile):
        repeats = at - 1 in hostile and folded[at - 1] == folded[at] in _COLLAPSING
        changed[origin[at]] = "" if repeats else _REPLACEMENTS.get(folded[at], "")
    return "".join(changed.get(at, char) for at, char in enumerate(text))


def _imitations(folded: str, structure: Structure) -> Iterator[tuple[str, int, int]]:
    """(marks, start, end) of each span of the folded text whose marks make it look like structure."""
    for match in _FENCE.finditer(folded):
        start, end = match.span(1)
        # A bracket that closes again before the words is not part of a fence: "- [ ] The end".
        yield "[", max(start, folded.rfind("]", start, end) + 1), end
    headings, labels = _patterns(structure)
    if headings is not None:
        pattern, headings_by_words = headings
        for match in pattern.finditer(folded):
            for heading in next(named for words, named in headings_by_words if words.fullmatch(match["words"])):
                # Words after a mark are an addition to the heading, "(revised)"; words after a space are a sentence.
                followed = bool(match["next"]) and not match["after"].strip()
                if _imitates(heading, match[1], match["after"], followed=followed):
                    yield from ((heading.mark + heading.closing, *match.span(group)) for group in (1, "after"))
    for match in labels.finditer(folded):
        yield ":", *match.span(1)
    for match in _BOX.finditer(folded):
        yield from (("\\{}", *match.span(group)) for group in (1, 2))
    yield from _near_forms(folded, structure)


def _near_forms(folded: str, structure: Structure) -> Iterator[tuple[str, int, int]]:
    """As `_imitations`, for text that is not the structure to the letter: other words for a fence, other headings in
    the template's style, and the lines of a prompt that are in no template (hint and leads)."""
    for match in _NEAR_FENCE.finditer(folded):
        start, end = match.span(1)
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


def _imitates(heading: Heading, before: str, after: str, *, followed: bool) -> bool:
    """Whether the marks before and after the heading's words make them look like the heading.

    They do if both sides have at least half of the template's marks. Words alone on their line also do, with marks on
    the left only: all of the template's marks if its heading has marks on both sides, else half. A tag needs only its
    opening bracket. followed: another word follows on the same line, with only white space between.
    """
    if heading.mark == "<":
        return _TAG_OPENS.search(before) is not None and (bool(after) or not followed)
    min_marks = max(1 if heading.mark in "#[<" else 2, heading.before // 2)
    marks = before.count(heading.mark)
    if heading.after and marks >= min_marks and after.count(heading.closing) >= max(1, heading.after // 2):
        return True
    return not followed and marks >= (heading.before if heading.after else min_marks)


@lru_cache(maxsize=16)
def _patterns(
    structure: Structure,
) -> tuple[tuple[re.Pattern[str], list[tuple[re.Pattern[str], list[Heading]]]] | None, re.Pattern[str]]:
    """The pattern of headings, with the headings by the pattern of their words (None without headings); the pattern of
    labels."""
    labels = "|".join(_alternatives({*_LEAD_LABELS, *structure.labels}))
    label_pattern = re.compile(rf"{_LINE_START}(?:{labels}){_COLON}", re.IGNORECASE)
    if not structure.headings:
        return None, label_pattern
    by_words: dict[str, list[Heading]] = {}
    for heading in sorted(structure.headings):
        (words,) = _alternatives({heading.words})
        by_words.setdefault(words, []).append(heading)
    words = "|".join(_alternatives({heading.words for heading in structure.headings}))
    pattern = rf"{_BEFORE}(?P<words>{words})(?=(?P<after>(?:[^\w\n]|_)*+)(?P<next>\w?))"
    headings = [(re.compile(words, re.IGNORECASE), named) for words, named in by_words.items()]
    return (re.compile(pattern, re.IGNORECASE), headings), label_pattern


def _alternatives(phrases: set[tuple[str, ...]]) -> list[str]:
    """Patterns of the phrases with any gap between words; longest first, since an alternation takes the first match."""
    ordered = sorted(phrases, key=lambda words: (-sum(map(len, words)), words))
    return [_GAP.join(map(word_pattern, words)) for words in ordered]


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
