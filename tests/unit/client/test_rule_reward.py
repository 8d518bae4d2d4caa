"""Whether scores pick the label, and the reward functions made from it."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_client.rule_reward import boxed_scores, compute_score, grm_rule_reward, is_right, is_tied

SCORE = st.integers(1, 10)


class TestIsRight:
    @pytest.mark.parametrize(
        ("scores", "label", "right"),
        [
            ((8, 3), 0, True),
            ((8, 3), 1, False),
            ((5, 5), 0, False),
            ((5, 5), 1, False),
            ((7, 2, 7), 0, False),
            ((2, 7, 7), 0, False),
            ((3, 9, 4), 1, True),
            ((3, 9, 4), 2, False),
        ],
    )
    def test_the_label_must_have_the_strictly_highest_score(
        self, scores: tuple[int, ...], label: int, right: bool
    ) -> None:
        assert is_right(scores, label) is right

    @given(st.lists(SCORE, min_size=2, max_size=6), st.data())
    def test_it_matches_the_formula_of_the_paper(self, scores: list[int], data: st.DataObject) -> None:
        label = data.draw(st.integers(0, len(scores) - 1))
        expected = all(scores[label] > scores[i] for i in range(len(scores)) if i != label)
        assert is_right(scores, label) is expected

    @pytest.mark.parametrize(("score", "good"), [(1, 0), (5, 0), (6, 1), (10, 1)])
    def test_a_single_score_is_mapped_to_good_or_bad(self, score: int, good: int) -> None:
        assert is_right((score,), good) is True
        assert is_right((score,), 1 - good) is False

    @pytest.mark.parametrize(("scores", "label"), [((8, None, 3), 0), ((None, 8), 0), ((None,), 1)])
    def test_a_missing_score_gives_none(self, scores: tuple[int | None, ...], label: int) -> None:
        assert is_right(scores, label) is None


@pytest.mark.parametrize(
    ("scores", "tied"),
    [((5, 5), True), ((5, 6), False), ((3, 3, 9), False), ((9, 3, 9), True), ((4,), False), ((None, 4), False)],
)
def test_a_tie_is_between_the_highest_scores(scores: tuple[int | None, ...], tied: bool) -> None:
    assert is_tied(scores) is tied


class TestBoxedScores:
    @pytest.mark.parametrize(
        ("text", "scores"),
        [
            (r"Scores: \boxed{8, 3}", (8, 3)),
            (r"\boxed{ 10 ,1,  7 }.", (10, 1, 7)),
            (r"\boxed {6}", (6,)),
            (r"\boxed{+8, 03}", (8, 3)),
            (r"It says \boxed{1, 10}. Scores: \boxed{8, 3}", (8, 3)),
            (r"\boxed{\boxed{8, 3}}", (8, 3)),
            # The last box counts, even if it is invalid.
            (r"Scores: \boxed{8, 3} as in \boxed{x, x}", None),
            (r"Scores: \boxed{8, 3} and \boxed{9, 1", None),
            (r"Scores: \boxed{8, 3} and \boxed", None),
            (r"Scores: \boxed{8, 3} and \boxed{\text{9}, 1}", None),
            # Scores are not clamped, rounded or filled in.
            (r"\boxed{0, 3}", None),
            (r"\boxed{11, 3}", None),
            (r"\boxed{-8, 3}", None),
            (r"\boxed{8.5, 3}", None),
            (r"\boxed{8, }", None),
            (r"\boxed{8 3}", None),
            (r"\boxed{}", None),
            ("\\boxed{\u0668, 3}", None),
            ("8, 3", None),
            ("", None),
        ],
    )
    def test_the_last_box_counts_or_none(self, text: str, scores: tuple[int, ...] | None) -> None:
        assert boxed_scores(text) == scores

    @given(st.lists(st.sampled_from([*"\\bx{}, 0123456789-+.\n", r"\boxed{"])).map("".join))
    def test_any_text_gives_scores_in_range_or_none(self, text: str) -> None:
        assert all(1 <= score <= 10 for score in boxed_scores(text) or ())

    @pytest.mark.parametrize("run", ["\\boxed" * 200_000, "\\boxed{" * 200_000, "\\boxed" + " " * 1_000_000])
    def test_long_repetitions_take_linear_time(self, run: str) -> None:
        assert boxed_scores(run) is None


class TestTRL:
    def test_each_completion_gets_a_reward(self) -> None:
        completions = [r"\boxed{8, 3}", r"\boxed{3, 8}", r"\boxed{5, 5}", "no verdict"]
        assert grm_rule_reward(completions, label=[0, 0, 0, 0]) == [1.0, -1.0, -1.0, -1.0]

    def test_it_accepts_the_trainers_arguments(self) -> None:
        """By keyword, including unknown ones."""
        columns: dict[str, Any] = {"label": [1, 0], "num_responses": [3, 1], "source": ["a", "b"]}
        rewards = grm_rule_reward(
            prompts=[[{"role": "user", "content": "?"}]] * 2,
            completions=[
                [{"role": "assistant", "content": r"Scores: \boxed{3, 9, 4}"}],
                [{"role": "assistant", "content": r"Scores: \boxed{6}"}],
            ],
            completion_ids=[[1], [2]],
            trainer_state=None,
            log_extra=print,
            **columns,
        )
        assert rewards == [1.0, -1.0]

    @pytest.mark.parametrize("completion", [[], [{"role": "assistant", "content": None}]])
    def test_a_turn_without_text_is_wrong(self, completion: list[dict[str, Any]]) -> None:
        assert grm_rule_reward([completion], label=[0]) == [-1.0]

    def test_the_last_message_counts(self) -> None:
        turns = [{"role": "tool", "content": r"\boxed{1, 9}"}, {"role": "assistant", "content": r"\boxed{9, 1}"}]
        assert grm_rule_reward([turns], label=[0]) == [1.0]

    def test_the_box_must_have_one_score_per_response(self) -> None:
        boxes = [r"\boxed{9}", r"\boxed{1, 9, 1}", r"\boxed{1, 9}"]
        assert grm_rule_reward(boxes, label=[1, 1, 1], num_responses=[2, 2, 2]) == [-1.0, -1.0, 1.0]
        assert grm_rule_reward(boxes, label=[2, 2, 2]) == [-1.0, -1.0, -1.0]

    @pytest.mark.parametrize("label", [None, True, 1.0, -1, "x", 2, np.array([0, 1]), math.nan, b"0", "9" * 5000])
    def test_an_invalid_label_costs_only_its_own_reward(self, label: Any, caplog: pytest.LogCaptureFixture) -> None:
        boxes, labels = [r"\boxed{9, 1}"] * 3, [0, label, 1]
        assert grm_rule_reward(boxes, label=labels, num_responses=[2, 2, 2]) == [1.0, None, -1.0]
        assert "cannot be read" in caplog.text
        assert caplog.text.count("type int") == isinstance(label, int) - isinstance(label, bool)
        assert compute_score("rm", boxes[0], label, {"num_responses": 2}) == 0.0

    @pytest.mark.parametrize("odd", [None, 3, np.array(["a"]), b"x", [None], [[]]])
    def test_a_completion_or_number_that_cannot_be_read_costs_only_its_own_reward(self, odd: Any) -> None:
        box, broken = r"\boxed{9, 1}", cast("Any", object())
        assert grm_rule_reward([box, odd, box], label=[0, 0, 1])[::2] == [1.0, -1.0]
        assert grm_rule_reward([box, box], label=[0, 0], num_responses=[broken, 2]) == [None, 1.0]
        assert compute_score("rm", odd, 0, odd) in (0.0, -1.0)

    def test_labels_and_completions_must_have_the_same_length(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            grm_rule_reward([r"\boxed{9, 1}"], label=[0, 0])


class TestVerl:
    @pytest.mark.parametrize("label", [1, "1", np.int64(1)])
    def test_labels_may_be_integers_or_digits(self, label: Any) -> None:
        call = {"data_source": "rm", "ground_truth": label, "extra_info": {"num_responses": 2, "num_turns": None}}
        assert compute_score(solution_str=r"Scores: \boxed{2, 7}", reward_router_address="host:1", **call) == 1.0
        assert compute_score(solution_str=r"Scores: \boxed{7}", **call) == -1.0

    def test_without_extra_info(self) -> None:
        assert compute_score("rm", r"\boxed{7}", "1") == 1.0
        assert compute_score("rm", r"\boxed{7}", "0") == -1.0

    def test_a_reward_is_a_plain_float(self) -> None:
        """verl requires the same keys for all samples of a batch; a float has none."""
        assert type(compute_score("rm", "", "0")) is float


def test_importing_it_imports_no_tensor_library() -> None:
    code = "import sys, grm_client.rule_reward; print(*{'torch', 'numpy', 'transformers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
