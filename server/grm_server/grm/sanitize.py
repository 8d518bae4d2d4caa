"""Neutralize text that imitates the prompt's structure, before `prompts` inserts it into a template.

Responses come from a policy that is trained against the judge, so they may be hostile. Text that could pass for a part
of the prompt's structure is rewritten: it stays legible, but is no longer structure. The search runs on the text as a
careless reader sees it (`lookalikes.fold`). Only the marks found are rewritten; the rest of the text stays as it is.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby

from grm_server.grm.lookalikes import fold, fold_character, word_pattern
from grm_server.grm.slices import SLICE_CHARS, Slices, T
from grm_server.grm.structure import Heading, Structure

# Control characters except tab and line ends. They are invisible, and some tokenizers drop them silently.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")

# Each repetition is bounded, or is possessive and starts where no other match can, so a long run takes linear time. The
# groups hold the marks to rewrite.
_BEFORE = r"(?:\A|(?<=[^\W_]))([\W_]*+)"
_GAP = r"[\W_]*+"
_WHOLE_GAP = re.compile(_GAP)
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
_LONGEST_BOX = 2**12
"""A box with more characters counts as one that is never closed. Bounds the work for one box."""
_TAG_OPENS = re.compile(r"<\s{0,4}/?\s{0,4}\Z")
_LEAD_LABELS = (("specific", "criteria"), ("scores",))
"""The labels of the judge's principles and verdict. The judge writes them, so a template need not contain them."""
_GAP_BLOCK = 2**10
"""A gap of four such blocks of characters is long. The search skips its inside: words and marks on its two sides do not
form structure together."""
_REPLACEMENTS = {"[": "(", "]": ")", "<": "(", ">": ")", "#": "=", ":": " -", "\\": "", "{": "(", "}": ")"}
"""Replacement of each mark. The other heading marks (=, *, -, _, ~, |) are dropped."""
_COLLAPSING = "#=*-_~|"
"""Marks that collapse: a run of one of them gets a single replacement."""


def _any_of(*words: str) -> str:
    return f"(?:{'|'.join(map(word_pattern, words))})"


_EDGE = "(?:(?:beg[il1|]n(?:n[il1|]ng)?|start(?:[il1|]ng)?|end(?:[il1|]ng)?|c[il1|][o0]s(?:e|[il1|]ng))s?)"
_SHOWN = rf"(?:{_any_of('response', 'answer')}|{_any_of('user', 'assistant', 'system', 'developer', 'tool')}{_GAP}turn)"
_THE = rf"(?:the{_GAP})?"
# "[The Beginning of Response 2]", "[End of Response 1]", "[Response 1 ends]".
_NEAR_FENCE = re.compile(
    rf"{_BEFORE}{_THE}(?:{_EDGE}{_GAP}(?:{word_pattern('of')}{_GAP})?{_THE}{_SHOWN}|{_SHOWN}{_GAP}\d{{0,4}}+{_GAP}{_EDGE}(?!\w))",
    re.IGNORECASE,
)
# The hint of `prompts`, "Hint: Response 2 is known to be the best.". Other hints stay.
_HINT = re.compile(
    rf"{_LINE_START}{word_pattern('hint')}{_COLON}"
    rf"(?=[^\n]{{0,60}}?(?:{word_pattern('response')}|kn[o0]wn[\W_]{{1,3}}t[o0][\W_]{{1,3}}be))",
    re.IGNORECASE,
)
_MIN_MARKS = 3
"""A line between fewer marks on both sides is not distinctive: "**Summary**"."""
_EMPHASIS = "*_"
_NEAR_LETTERS = 40
"""At least as many letters and digits as a match of `_NEAR_FENCE` has."""
_LONGEST_LINE = 200
"""At least as many characters as a hint, or a line in the style of a heading, has after the gap at its start."""


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
    hostile = yield from _imitations(folded, structure, slice_chars)
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


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A part of the text that is searched by itself: it ends inside of a long gap, or with the text."""

    start: int
    stop: int
    gap_start: int
    """Where the gap before it starts, skipped part included."""
    gap_stop: int
    """Where the gap after it ends."""


def _imitations(folded: str, structure: Structure, slice_chars: int) -> Slices[bytearray]:
    """(len(folded),), 1 for each character that makes a part of the text look like structure; empty if none does."""
    hostile = bytearray()
    for stretch in (yield from _stretches(folded)):
        for visited, spans in _searches(folded[stretch.start : stretch.stop], structure, slice_chars):
            yield visited
            if spans and not hostile:
                hostile = bytearray(len(folded))
            for marks, start, stop in spans:
                # Marks in the skipped part would stand next to the words once the nearer marks are dropped.
                first = stretch.gap_start if start == 0 else stretch.start + start
                last = stretch.gap_stop if stretch.start + stop == stretch.stop else stretch.start + stop
                for part in range(first, last, slice_chars):
                    indices = range(part, min(part + slice_chars, last))
                    for at in indices:
                        hostile[at] |= folded[at] in marks
                    yield len(indices)
    return hostile


def _stretches(folded: str) -> Slices[list[_Stretch]]:
    """The text without the inside of its long gaps, so a gap in what is left has at most four blocks."""
    gaps = [False]
    """Whether the block is part of a gap; one more before the first block and after the last."""
    for start in range(0, len(folded), _GAP_BLOCK):
        end = start + _GAP_BLOCK
        gaps.append(end <= len(folded) and _end_of_match(_WHOLE_GAP, folded, start, end) == end)
        yield 1 + _GAP_BLOCK * gaps[-1]
    gaps.append(False)
    stretches: list[_Stretch] = []
    start = gap_start = 0
    for inside, run in groupby(range(1, len(gaps) - 1), lambda at: all(gaps[at - 1 : at + 2])):
        if not inside:
            continue
        skipped = list(run)
        stop, start_of_next = _GAP_BLOCK * (skipped[0] - 1), _GAP_BLOCK * skipped[-1]
        stretches.append(_Stretch(start, stop, gap_start, _end_of_match(_WHOLE_GAP, folded, start_of_next)))
        gap_start = next(at for at in range(stop, -1, -1) if not at or folded[at - 1].isalnum())
        start = start_of_next
        yield stop - gap_start
    return [*stretches, _Stretch(start, len(folded), gap_start, len(folded))]


_Span = tuple[str, int, int]
"""(marks, start, end) of a span of the folded text whose marks make it look like structure."""


def _searches(folded: str, structure: Structure, slice_chars: int) -> Iterator[tuple[int, list[_Span]]]:
    """All imitations, after each search of a window by a pattern: (characters searched, spans)."""
    headings, labels, letters = _patterns(structure)
    searches: list[tuple[re.Pattern[str], Callable[[str, re.Match[str]], Iterable[_Span]]]] = [
        (_FENCE, _fence_spans),
        (_NEAR_FENCE, _fence_spans),
        (_HINT, lambda _, match: [(":", *match.span(1))]),
        (labels, lambda _, match: [(":", *match.span(1))]),
        (_BOX, lambda _, match: [("\\{}", *match.span(group)) for group in (1, 2)]),
    ]
    if headings is not None:
        pattern, by_words = headings
        searches.append((pattern, lambda _, match: _heading_spans(match, by_words)))
    styles = _styles(structure)
    searches += [(pattern, partial(_line_spans, style)) for style, pattern in styles]
    reach = {_BOX: _LONGEST_BOX, _HINT: _LONGEST_LINE, **dict.fromkeys((line for _, line in styles), _LONGEST_LINE)}
    resume = dict.fromkeys((pattern for pattern, _ in searches), 0)
    """Where the last match of each pattern ended: matches do not overlap."""
    for start, stop, context in _windows(folded, letters, slice_chars):
        for pattern, spans_of in searches:
            spans: list[_Span] = []
            end = stop + reach[pattern] if pattern in reach else context
            for match in pattern.finditer(folded, max(start, resume[pattern]), end):
                if match.start() >= stop:
                    break
                spans += spans_of(folded, match)
                resume[pattern] = match.end()
            yield end - start, spans


def _windows(folded: str, letters: int, slice_chars: int) -> Iterator[tuple[int, int, int]]:
    """(start, stop, context): a match that starts in [start, stop) needs the text up to `context` at most.

    A match consists of at most `letters` letters or digits with gaps of other characters around them, of any length.
    It starts at a gap, so a window ends with one. Where gaps are long, windows are long too: the context of a window is
    at most as long as the window, so all searches together visit the text twice.
    """
    phrase = re.compile(rf"(?:{_GAP}[^\W_]){{0,{letters}}}+{_GAP}")
    start = 0
    while start < len(folded):
        size = slice_chars
        while True:
            stop = _end_of_match(_WHOLE_GAP, folded, start + size)
            # One more character, because the patterns look at what follows.
            context = _end_of_match(phrase, folded, stop) + 1
            if context - stop <= size or stop >= len(folded):
                break
            size = max(2 * size, context - stop)
        yield start, stop, context
        start = stop


def _end_of_match(pattern: re.Pattern[str], text: str, at: int, end: int = sys.maxsize) -> int:
    """pattern: matches everywhere, if only an empty text."""
    match = pattern.match(text, at, end)
    assert match is not None
    return match.end()


def _fence_spans(folded: str, match: re.Match[str]) -> list[_Span]:
    start, end = match.span(1)
    # A bracket that closes again before the words is not part of a fence: "- [ ] The end".
    return [("[", max(start, folded.rfind("]", start, end) + 1), end)]


def _line_spans(style: Heading, folded: str, match: re.Match[str]) -> list[_Span]:
    """The marks of a line in the style of a heading; none if it ends otherwise."""
    end = tail = match.end()
    while not folded[tail - 1].isalnum():
        tail -= 1
    if folded.count(style.closing, tail, end) < style.after:
        return []
    return [(style.mark, *match.span(1)), (style.closing, tail, end)]


def _heading_spans(match: re.Match[str], headings: list[tuple[re.Pattern[str], list[Heading]]]) -> list[_Span]:
    # Words after a mark are an addition to the heading, "(revised)"; words after a space are a sentence.
    followed = bool(match["next"]) and not match["after"].strip()
    return [
        (heading.mark + heading.closing, *match.span(group))
        for heading in next(named for words, named in headings if words.fullmatch(match["words"]))
        if _imitates(heading, match[1], match["after"], followed=followed)
        for group in (1, "after")
    ]


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
) -> tuple[tuple[re.Pattern[str], list[tuple[re.Pattern[str], list[Heading]]]] | None, re.Pattern[str], int]:
    """The pattern of headings, with the headings by their joined words (None without headings); the pattern of
    labels; the largest number of letters and digits in a match of any pattern but boxes."""
    label_phrases = {*_LEAD_LABELS, *structure.labels}
    phrases = {("the", "begin", "of"), *label_phrases, *(heading.words for heading in structure.headings)}
    # A pattern may look at one more.
    letters = max(_NEAR_LETTERS, 1 + max(sum(map(len, words)) for words in phrases))
    labels = "|".join(_alternatives(label_phrases))
    label_pattern = re.compile(rf"{_LINE_START}(?:{labels}){_COLON}", re.IGNORECASE)
    if not structure.headings:
        return None, label_pattern, letters
    by_words: dict[str, list[Heading]] = {}
    for heading in sorted(structure.headings):
        (phrase,) = _alternatives({heading.words})
        by_words.setdefault(phrase, []).append(heading)
    words = "|".join(_alternatives({heading.words for heading in structure.headings}))
    pattern = rf"{_BEFORE}(?P<words>{words})(?=(?P<after>(?:[^\w\n]|_)*+)(?P<next>\w?))"
    headings = [(re.compile(phrase, re.IGNORECASE), named) for phrase, named in by_words.items()]
    return (re.compile(pattern, re.IGNORECASE), headings), label_pattern, letters


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
    return re.compile(rf"(?:\A|(?<=\n))({marks})[^\W_][^\n]{{0,150}}+(?=\n|\Z)")
