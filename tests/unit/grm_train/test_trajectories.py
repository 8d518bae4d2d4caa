"""Rows to examples: which samples are used, and the meta RM's input."""

from __future__ import annotations

from collections import Counter
from typing import Any

from grm_server.app.formats import judge_format, meta_template
from grm_train.meta_rm.split import HELD_OUT, SELECTION, part_of
from grm_train.meta_rm.trajectories import Data, read_data
from tests.unit.grm_train.rows import error, item, rows, sample


def read(*found: Any) -> Data:
    return read_data(found, judge_format(), meta_template(None))


def test_unused_trajectories_are_counted() -> None:
    unparsed = sample(order=None, scores=None, critique=None, right=None, failure="no_scores")
    data = read(
        item(1, [sample(), sample(hinted=True), unparsed]),
        error(2),
        item(3, [sample(hinted=True)], model="another"),
    )
    assert len(data.trajectories) == 1
    assert data.left_out == Counter({"hinted": 2, "neither right nor wrong": 1, "error invalid_body": 1})
    # A model without a used sample is not listed as a judge.
    assert (data.judges, data.prompts) == (("judge",), 1)


def test_the_meta_rm_sees_the_order_that_the_judge_saw() -> None:
    swapped = sample(order=(1, 0), scores=(7, 4))
    [found] = read(item(1, [swapped])).trajectories
    assert found.user.index("[The Begin of Response 1]\nNo.") < found.user.index("[The Begin of Response 2]\nYes.")
    assert found.answer == "Specific Criteria: Correctness.\nAnalysis: So.\nScores: \\boxed{4, 7}"
    assert (found.shown, found.lengths) == ((4, 7), (12, 3, 3, 4))


def test_three_responses_are_in_the_order_shown() -> None:
    """With two responses, a permutation and its inverse cannot be told apart."""
    three = item(1, [sample(order=(2, 0, 1), scores=(9, 3, 4))], responses=["zero", "one", "two"])
    [found] = read(three).trajectories
    assert found.shown == (4, 9, 3)
    assert found.user.index("two") < found.user.index("zero") < found.user.index("one")


def test_given_principles_are_in_the_answer() -> None:
    [found] = read(item(1, [sample(principles=None)], principles="Be brief.")).trajectories
    assert found.answer.startswith("Specific Criteria: Be brief.\n")
    assert "Be brief." not in found.user
    assert found.lengths[0] == len("Be brief.")


def test_ties_at_the_top_are_marked() -> None:
    samples = [sample(scores=(5, 5), right=False), sample(scores=(7, 4)), sample(scores=(4, 7), right=False)]
    assert [t.tied for t in read(item(1, samples)).trajectories] == [True, False, False]


def test_trajectories_with_the_same_prompt_are_adjacent() -> None:
    found = read(*rows(20, lambda rng, right: str(rng.random()))).trajectories
    seen = [(t.line, t.order) for t in found]
    assert seen == sorted(seen)
    # They share one text object.
    assert len({id(t.user) for t in found}) == len(set(seen))


def test_the_split_is_by_the_text_of_the_query() -> None:
    turns = [{"role": "user", "content": "Question  1?\n"}]
    one, same, other = read(
        item(1, [sample()]), item(2, [sample()], query=turns, responses=["a", "b"]), item(3, [sample()])
    ).trajectories
    assert one.query == same.query != other.query


def test_the_shares_of_the_parts() -> None:
    parts = Counter(part_of(str(number), 0) for number in range(5000))
    assert abs(parts["test"] / 5000 - HELD_OUT) < 0.02
    assert abs(parts["selection"] / 5000 - SELECTION) < 0.02
    assert any(part_of(str(number), 0) != part_of(str(number), 1) for number in range(50))
