"""From flat lists to groups and back."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_client.trainers.groups import Group, as_query, as_text, in_flat_order, into_groups


def test_samples_of_a_prompt_that_stand_apart_form_one_group() -> None:
    groups = into_groups(["p", "q", "p", "q"], ["a", "b", "c", "d"])
    assert groups == (Group("p", ("a", "c"), ((0,), (2,))), Group("q", ("b", "d"), ((1,), (3,))))
    assert in_flat_order(groups, [(1.0, 3.0), (2.0, 4.0)]) == [1.0, 2.0, 3.0, 4.0]


def test_a_failed_group_gives_none_and_others_keep_their_values() -> None:
    groups = into_groups(["p", "q", "p"], ["a", "b", "c"])
    assert in_flat_order(groups, [None, [7.0]]) == [None, 7.0, None]
    assert in_flat_order((), []) == []


def test_duplicate_responses_are_judged_once_and_share_the_reward() -> None:
    (group,) = into_groups(["p"] * 3, ["a", "b", "a"])
    assert group.responses == ("a", "b")
    assert in_flat_order([group], [[3.0, 9.0]]) == [3.0, 9.0, 3.0]


def test_keys_separate_equal_prompts_and_never_join_different_ones() -> None:
    groups = into_groups(["p", "p", "q", "p"], ["a", "b", "c", "d"], ["1", "2", "1", "1"])
    assert [(group.query, group.responses) for group in groups] == [("p", ("a", "d")), ("p", ("b",)), ("q", ("c",))]


def test_a_large_group_is_split_evenly() -> None:
    groups = into_groups(["p"] * 65, [str(i) for i in range(65)])
    assert [len(group.responses) for group in groups] == [32, 33]
    assert in_flat_order(groups, [group.responses for group in groups]) == [str(i) for i in range(65)]
    assert len(into_groups(["p"] * 99, ["a"] * 99)) == 1


def test_lists_of_different_lengths_raise() -> None:
    with pytest.raises(ValueError, match="shorter"):
        into_groups(["p", "p"], ["a"])
    with pytest.raises(ValueError, match="shorter"):
        in_flat_order(into_groups(["p", "p"], ["a", "b"]), [[1.0]])


@given(
    st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from("abcdef")), max_size=40),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_every_sample_gets_its_own_reward(samples: list[tuple[str, str]], limit: int, rng: random.Random) -> None:
    rng.shuffle(samples)
    groups = into_groups([p for p, _ in samples], [c for _, c in samples], max_responses=limit)
    assert all(1 <= len(group.responses) <= limit for group in groups)
    labelled = [[f"{group.query}{response}" for response in group.responses] for group in groups]
    assert in_flat_order(groups, labelled) == [p + c for p, c in samples]


def test_messages_are_converted_for_the_server() -> None:
    chat: list[dict[str, object]] = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "image", "image": object()}]},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "content": "4", "name": "sum"},
    ]
    assert as_query(chat) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is [image]"},
        {"role": "assistant", "content": ""},
        {"role": "tool", "content": "[Tool result: sum]\n4"},
    ]
    assert as_text([{"role": "assistant", "content": "Four."}]) == "Four."
    assert as_text([{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}]) == "a\n\nb"
