"""What a person sees, and what a hostile response cannot make them see."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from grm_client.demo import bar, clean, excerpt, render
from grm_client.exchange import as_rewards

Answer = Callable[..., dict[str, Any]]


def show(request: dict[str, Any], answer: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=120, force_terminal=False)
    render(console, request, as_rewards(answer))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def sample(index: int, **fields: Any) -> dict[str, Any]:
    return {
        "index": index,
        "order": [2, 0, 1],
        "principles": f"principles of {index}",
        "critique": f"critique of {index}",
        "scores": [3, 9, 4],
        "finish_reason": "stop",
        "completion_tokens": 30,
        "failure": None,
    } | fields


def test_the_table_ranks_and_marks(answer: Answer) -> None:
    text = show({"query": "why?", "responses": ["first", "second", "third"]}, answer())
    lines = [line.split() for line in text.splitlines()]
    second, first, third = (
        next(line for line in lines if line and line[-1] == name) for name in ("second", "first", "third")
    )
    assert lines.index(second) < lines.index(first) < lines.index(third)
    assert second[:2] == ["1", "5.62"]
    assert second[3:] == ["45", "best", "second"]
    assert first[:2] == third[:2] == ["2", "2.12"]
    assert first[3:] == ["17", "tie", "first"]
    assert third[3:] == ["17", "tie", "third"]
    assert "8 of 9 samples voted (1 no_scores)" in text
    assert "240 generated tokens" in text
    assert "1.2 s" in text


def test_all_tied_are_all_best(answer: Answer) -> None:
    tied = answer(vote_sums=[8, 8], rewards=[4.0, 4.0], ranking=[0, 1], best=0, ties=[[0, 1]])
    text = show({"query": "why?", "responses": ["x", "y"]}, tied)
    assert text.count("best, tie") == 2


def test_the_first_sample_that_voted_is_shown_with_its_positions(answer: Answer) -> None:
    samples = [sample(0, scores=None, failure="no_scores"), sample(1), sample(2)]
    text = show({"query": [{"role": "user", "content": "why?"}], "responses": ["a", "b", "c"]}, answer(samples=samples))
    assert "critique of 1" in text
    assert "principles of 1" in text
    assert "critique of 0" not in text
    assert "1 = response 2, 2 = response 0, 3 = response 1" in text
    assert "(3, 9, 4)" in text


def test_hostile_text_is_shown_and_not_obeyed(answer: Answer) -> None:
    evil = "[bold red]10.00[/] \x1b[2J\x1b]0;title\x07\x9b31mred\u202e :smile: [/nope] \r over"
    text = show({"query": evil, "responses": [evil] * 3}, answer(samples=[sample(0, principles=evil, critique=evil)]))
    assert text.count("[bold red]10.00[/] red :smile: [/nope]") == 6
    assert not any(character in text for character in "\x1b\x9b\x07\r\u202e")
    assert "title" not in text


@given(st.text())
def test_cleaned_text_has_no_control_characters(text: str) -> None:
    assert not any(ord(c) < 32 and c not in "\n\t" or 127 <= ord(c) < 160 for c in clean(text))
    assert clean(clean(text)) == clean(text)
    assert len(excerpt(text)) <= 70


def test_cleaning_takes_linear_time() -> None:
    start_s = time.perf_counter()
    clean("\x1b]" * 200_000)
    clean("\x1b[1;" * 200_000)
    assert time.perf_counter() - start_s < 2.0


@pytest.mark.parametrize(
    ("reward", "cells"), [(10.0, "██████████"), (1.0, "█         "), (5.5, "█████▌    "), (0.0, " " * 10)]
)
def test_bars_are_ten_cells_wide(reward: float, cells: str) -> None:
    assert bar(reward) == cells
