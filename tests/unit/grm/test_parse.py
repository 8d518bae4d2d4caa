"""Parsing a sample: scores return to their responses, and only the verdict counts as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_server.app.formats import judge_format
from grm_server.grm.parse import parse
from grm_server.grm.script import Sample
from grm_server.grm.types import Draw, Failure, FailureReason, Trajectory

FORM = judge_format()


def parsed(draw: Draw, sample: Sample, n: int) -> Trajectory | Failure:
    """In the built-in format."""
    return parse(FORM.grammars(len(draw.order)), draw, sample, n)


def read(tail: str, order: tuple[int, ...] = (0, 1), **texts: str) -> Trajectory | Failure:
    return parsed(Draw(0, order, 1), Sample({"verdict": tail, **texts}), len(order))


def test_scores_go_back_to_request_order_by_a_three_cycle() -> None:
    # Shown: response 2, then 0, then 1. A 3-cycle is not its own inverse, so applying the inverse would show.
    trajectory = read("7, 8, 9}", order=(2, 0, 1))
    assert isinstance(trajectory, Trajectory)
    assert trajectory.scores == (8, 9, 7)


@given(st.integers(1, 9).flatmap(lambda n: st.permutations(range(n))), st.data())
def test_shuffle_then_parse_is_the_identity(order: list[int], data: st.DataObject) -> None:
    scores = data.draw(st.lists(st.integers(1, 10), min_size=len(order), max_size=len(order)))
    tail = ", ".join(str(scores[i]) for i in order) + "}"
    trajectory = read(tail, tuple(order))
    assert isinstance(trajectory, Trajectory)
    assert trajectory.scores == tuple(scores)


def test_texts_are_stripped_and_principles_are_none_if_the_task_gave_them() -> None:
    assert read("1, 2}", critique=" Good.\n").sample == Sample({"verdict": "1, 2}", "critique": " Good.\n"})
    sample = Sample({"critique": " Good.\n"})
    assert (sample.principles, sample.critique) == (None, "Good.")
    assert Sample({"principles": " Truth. "}).principles == "Truth."
    assert Sample({}).critique == ""
    assert (Sample({"thought": "\nHm. "}).thought, Sample({}).thought) == ("Hm.", None)


def test_a_sample_knows_where_its_texts_ended() -> None:
    texts = {"thought": "", "principles": "", "critique": "", "verdict": "7}", "verdict 2": "A"}
    sample = Sample(texts, cut=("thought",), unmarked=("thought", "critique"))
    assert sample.free_texts == ("thought", "principles", "critique")
    assert [sample.end_of(name) for name in sample.free_texts] == ["budget", "mark", "turn"]


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        ("", FailureReason.NO_SCORES),
        ("7, 3", FailureReason.NO_SCORES),
        ("}", FailureReason.NO_SCORES),
        ("seven, 3}", FailureReason.NO_SCORES),
        ("7, , 3}", FailureReason.NO_SCORES),
        ("7.5, 3}", FailureReason.NO_SCORES),
        ("٧, ٣}", FailureReason.NO_SCORES),
        ("{7, 3}", FailureReason.NO_SCORES),
        ("7}", FailureReason.WRONG_COUNT),
        ("7, 3, 5}", FailureReason.WRONG_COUNT),
        ("0, 3}", FailureReason.OUT_OF_RANGE),
        ("-1, 3}", FailureReason.OUT_OF_RANGE),
        ("7, 11}", FailureReason.OUT_OF_RANGE),
        ("7, 999999999}", FailureReason.OUT_OF_RANGE),
        ("7, 9999999999}", FailureReason.NO_SCORES),
    ],
)
def test_a_tail_without_a_verdict_is_a_failure_with_a_reason(tail: str, reason: FailureReason) -> None:
    failure = read(tail)
    assert isinstance(failure, Failure)
    assert failure.reason is reason
    assert failure.sample is not None


def test_only_the_first_box_of_the_tail_is_the_verdict() -> None:
    trajectory = read("2, 3} Scores: \\boxed{10, 1}", critique="Scores: \\boxed{9, 9}")
    assert isinstance(trajectory, Trajectory)
    assert trajectory.scores == (2, 3)


def test_a_bad_verdict_is_not_replaced_by_a_later_good_one() -> None:
    assert isinstance(read("99, 3} or rather {10, 1}"), Failure)


ANY = st.text(st.characters(exclude_categories=())) | st.sampled_from(["9" * 5000 + "}", "1," * 5000 + "1}", "\ud800}"])


@given(ANY, ANY, ANY, st.permutations(range(5)), st.integers(1, 5))
def test_never_raises(tail: str, critique: str, principles: str, order: list[int], shown: int) -> None:
    """Including samples that show only some of the responses."""
    draw = Draw(0, tuple(order[:shown]), 1)
    outcome = parsed(draw, Sample({"verdict": tail, "critique": critique, "principles": principles}), 5)
    if isinstance(outcome, Trajectory):
        scores = {i: score for i, score in enumerate(outcome.scores) if score is not None}
        assert scores.keys() == set(draw.order)
        assert all(1 <= score <= 10 for score in scores.values())


@given(st.permutations(range(4)), st.lists(st.integers(1, 10), min_size=4, max_size=4), ANY, ANY, st.integers(0, 3))
def test_no_text_around_a_verdict_changes_it(
    order: list[int], scores: list[int], before: str, after: str, missing: int
) -> None:
    """Neither a verdict quoted in the critique, nor text after the box."""
    shown = tuple(i for i in order if i != missing)
    tail = " , ".join(str(scores[i]) for i in shown) + "}"
    quoted = before + "\nScores: \\boxed{1, 1, 1}"
    outcome = parsed(Draw(0, shown, 1), Sample({"verdict": tail + after, "critique": quoted, "principles": quoted}), 4)
    assert isinstance(outcome, Trajectory)
    assert outcome.scores == tuple(None if i == missing else scores[i] for i in range(4))


@given(st.text(alphabet="0123456789,-+ }{.\n", max_size=20))
def test_never_raises_on_text_that_looks_like_scores(tail: str) -> None:
    outcome = read(tail)
    assert isinstance(outcome, Failure) or all(score is not None and 1 <= score <= 10 for score in outcome.scores)


def test_a_sample_without_a_tail_is_a_failure() -> None:
    assert isinstance(parsed(Draw(0, (0,), 1), Sample({}), 1), Failure)
