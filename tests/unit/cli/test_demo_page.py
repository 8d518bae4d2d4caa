"""The page of `grm demo`: correct for normal answers, and harmless for hostile text."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from grm_client.transport import as_rewards
from grm_server.cli.demo_page import bar, clean, excerpt, percent, render

Answer = Callable[..., dict[str, Any]]
Sample = Callable[..., dict[str, Any]]


def show(request: dict[str, Any], answer: dict[str, Any], width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    render(console, request, as_rewards(answer))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_ranks_and_marks(answer: Answer) -> None:
    text = show({"query": "why?", "responses": ["first", "second", "third"]}, answer())
    lines = [line.split() for line in text.splitlines()]
    second, first, third = (
        next(line for line in lines if line and line[-1] == name) for name in ("second", "first", "third")
    )
    assert lines.index(second) < lines.index(first) < lines.index(third)
    assert second == ["1", "2", "5.62", "±", "0.42", "█████▋", "93", "%", "best", "second"]
    assert first == ["2", "1", "2.12", "±", "0.31", "██▏", "4", "%", "tie", "first"]
    assert third == ["2", "3", "2.12", "±", "0.30", "██▏", "3", "%", "tie", "third"]
    assert "by label" not in text
    assert "k = 9 of 16, stopped: decided · predicted risk that all 16 would decide otherwise: 3 %" in text
    assert "8 of 9 samples voted (1 no_scores)" in text
    assert "240 generated tokens" in text
    assert "1.2 s" in text


@pytest.mark.parametrize("width", [40, 50, 60, 72, 80, 120, 200])
def test_a_table_fits_the_terminal(answer: Answer, width: int) -> None:
    """Rewards stay complete, and so do probabilities where there is room; only the response's text is cut."""
    text = show({"query": "why?", "responses": ["long " * 50] * 3}, answer(p_best_label=[0.2, 0.6, 0.2]), width=width)
    rows = [line for line in text.splitlines() if "±" in line]
    assert len(rows) == 3
    assert rows[0].split()[:5] == ["1", "2", "5.62", "±", "0.42"]
    assert "best  long" in rows[0]
    assert ("93 %      60 %  best" in rows[0]) == (width >= 60)
    assert ("█████▋" in rows[0]) == (width >= 80)
    assert all(len(line) <= width for line in text.splitlines())
    assert width < 200 or len(rows[0].rstrip()) > 150, "a wide terminal is used"


def test_a_calibrated_server_adds_a_column_by_label(answer: Answer) -> None:
    calibrated = answer(p_best_label=[0.25, 0.55, 0.2])
    text = show({"query": "why?", "responses": ["first", "second", "third"]}, calibrated)
    assert "by label" in text
    assert "93 %      55 %" in text


def test_all_tied_are_all_best(answer: Answer) -> None:
    """Ranks follow rewards, not vote sums, which may differ."""
    tied = answer(vote_sums=[8, 4], votes=[2, 1], rewards=[4.0, 4.0], ranking=[0, 1], best=0, ties=[[0, 1]])
    text = show({"query": "why?", "responses": ["x", "y"]}, tied)
    assert text.count("best, tie") == 2


def test_full_k_and_a_single_response_show_no_probabilities(answer: Answer) -> None:
    one = answer(rewards=[4.0], se=[0.2], p_best=[1.0], ranking=[0], ties=[], k=9, stop_reason="full_k")
    text = show({"query": "why?", "responses": ["x"]}, one)
    assert "k = 9 of 9\n" in text
    assert "p best" not in text
    assert "%" not in text


def test_the_first_sample_that_voted_is_shown_with_its_positions(answer: Answer, sample: Sample) -> None:
    samples = [sample(0, scores=None, failure="no_scores"), sample(1), sample(2)]
    text = show({"query": [{"role": "user", "content": "why?"}], "responses": ["a", "b", "c"]}, answer(samples=samples))
    assert "critique of 1" in text
    assert "principles of 1" in text
    assert "critique of 0" not in text
    assert "sample 2: critique" in text, "samples are numbered from 1, as responses are"
    assert "in this sample Response 1 is #3, Response 2 is #1, Response 3 is #2; its scores: #1 3, #2 9, #3 4" in text


def test_a_sample_of_a_block_shows_which_responses_it_saw(answer: Answer, sample: Sample) -> None:
    block = answer(samples=[sample(0, order=[2, 0], scores=[3, None, 4])])
    text = show({"query": "why?", "responses": ["a", "b", "c"]}, block)
    assert "in this sample Response 1 is #3, Response 2 is #1; its scores: #1 3, #2 -, #3 4" in text


def test_hostile_text_is_shown_and_not_obeyed(answer: Answer, sample: Sample) -> None:
    evil = "[bold red]10.00[/] \x1b[2J\x1b]0;title\x07\x9b31mred\u202e :smile: [/nope] \r over"
    hostile = answer(
        samples=[sample(0, principles=evil, critique=evil)],
        stop_reason=evil,
        failures={evil: 1},
        p_best_label=[0.3] * 3,
    )
    text = show({"query": evil, "responses": [evil] * 3}, hostile)
    assert text.count("[bold red]10.00[/] red :smile: [/nope]") == 8
    assert not any(character in text for character in "\x1b\x9b\x07\r\u202e")
    assert "title" not in text


@given(st.text())
def test_cleaned_text_has_no_control_characters(text: str) -> None:
    assert not any(ord(c) < 32 and c not in "\n\t" or 127 <= ord(c) < 160 for c in clean(text))
    assert clean(clean(text)) == clean(text)
    assert len(excerpt(text)) <= 70


def test_cleaning_takes_linear_time() -> None:
    start_s = time.process_time()
    clean("\x1b]" * 200_000)
    clean("\x1b[1;" * 200_000)
    assert time.process_time() - start_s < 2.0


@pytest.mark.parametrize(
    ("reward", "cells"), [(10.0, "██████████"), (1.0, "█         "), (5.5, "█████▌    "), (0.0, " " * 10)]
)
def test_bars_are_ten_cells_wide(reward: float, cells: str) -> None:
    assert bar(reward) == cells


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "<1 %"), (0.0049, "<1 %"), (0.0051, "1 %"), (0.5, "50 %"), (0.994, "99 %"), (1.0, ">99 %")]
)
def test_no_estimate_is_certain(p: float, text: str) -> None:
    assert percent(p) == text
