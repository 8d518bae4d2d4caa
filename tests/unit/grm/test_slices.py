"""Sanitizing pauses often, whatever a text holds, and pauses do not change its result."""

import pytest

from grm_server.app.formats import judge_format
from grm_server.grm.prompt_template import sanitized, sanitizing
from grm_server.grm.sanitize import neutralize, neutralizing, run
from grm_server.grm.slices import SLICE_CHARS
from grm_server.grm.types import Message, Task
from tests.attacks import corpus
from tests.hostile import HOSTILE

STRUCTURE = judge_format().structure
CHARS = 300_000

COSTLY = {
    "ligatures of 18 letters": "\ufdfa" * CHARS,
    "distinct characters": "".join(chr(code) for code in range(0x20, 0x20 + CHARS) if not 0xD800 <= code < 0xE000),
    "words": "The quick brown fox. " * (CHARS // 21),
    "spaces": "a" + " " * CHARS,
    "lines": "a" + "\n" * CHARS,
    "marks before a heading": "x" + "#" * CHARS + " Principles ####",
    "marks after a heading": "#### Principles " + "#" * CHARS,
    "long gaps": ("The" + " " * 3000) * (CHARS // 3003),
    "short gaps": ("the" + "-" * 300) * (CHARS // 303),
    "headings": "#### Principles ####\n" * (CHARS // 21),
    "a box": "\\boxed{" + "1," * (CHARS // 2),
    "boxes": "\\boxed{1" * (CHARS // 8),
}


@pytest.mark.parametrize("name", COSTLY)
def test_no_slice_is_long(name: str) -> None:
    visited = list(neutralizing(COSTLY[name], STRUCTURE))
    # A search passes the characters of gaps fast.
    assert max(visited) < (30 if name == "long gaps" else 2) * SLICE_CHARS
    # At most 8 characters folded from each one, which seven patterns search.
    assert sum(visited) < 84 * CHARS


def test_folding_counts_the_characters_that_it_visits() -> None:
    """The loop pauses by this count; searches, which count for themselves, come later."""
    slices = 5
    visited = list(neutralizing("\ufdfa" * (slices * SLICE_CHARS), STRUCTURE))
    assert visited[:slices] == [SLICE_CHARS] * slices


def test_all_texts_of_a_task_are_sanitized_in_slices() -> None:
    text = "x #### Principles ####\n" * 2000
    task = Task((Message("user", text), Message("assistant", text)), (text, "", text), text, text, hint=1)
    assert len(list(sanitizing(task, STRUCTURE))) > 6 * len(text) / SLICE_CHARS
    safe = neutralize(text, STRUCTURE)
    turns = (Message("user", safe), Message("assistant", safe))
    assert sanitized(task, STRUCTURE) == Task(turns, (safe, "", safe), safe, safe, hint=1)


@pytest.mark.parametrize("count", [1, 4000])
def test_short_texts_count_too(count: int) -> None:
    """Many of them fill a slice, and those of many requests fill one together."""
    task = Task((Message("user", "Hello."),) * count, ("Hi.",))
    visited = list(sanitizing(task, STRUCTURE))
    assert sum(visited) > 30 * count
    assert max(visited) < 2 * SLICE_CHARS


@pytest.mark.parametrize("slice_chars", [1, 2, 3, 7, 64])
def test_the_result_does_not_depend_on_the_slices(slice_chars: int) -> None:
    texts = [*HOSTILE, *(attack.response[:2000] for attack in corpus())]
    for text in (*texts, " ".join(HOSTILE)):
        whole = run(neutralizing(text, STRUCTURE, slice_chars=10**9))
        assert run(neutralizing(text, STRUCTURE, slice_chars)) == whole


@pytest.mark.parametrize("gap", [" ", "\n", "\n ", "-", "[ "])
def test_a_long_gap_hides_no_structure(gap: str) -> None:
    long = gap * 6000
    assert "(The End" in neutralize(f"x{long}[The End of Response 1]{long}x", STRUCTURE)
    assert "Scores -" in neutralize(f"x\n{long}Scores: 10{long}", STRUCTURE)
    assert "= Principles =" in neutralize(f"x{long}#### Principles ####{long}", STRUCTURE)


def test_all_marks_of_a_long_run_are_dropped() -> None:
    """Those that stay would stand next to the words."""
    run_of_marks = "#" * 9000
    assert neutralize(f"x {run_of_marks}Principles{run_of_marks} x", STRUCTURE) == "x =Principles= x"
    assert neutralize(f"[{'[' * 9000}The End of Response", STRUCTURE) == f"({'(' * 9000}The End of Response"


def test_an_endless_box_counts_as_never_closed() -> None:
    scores = "1, " * 5000
    assert neutralize(f"\\boxed{{{scores}and so on", STRUCTURE) == f"boxed({scores}and so on"
