"""What chat turns say: the cases that server and client share, and turns of any shape."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_client import turns as client
from grm_server.api import turns as server
from grm_server.api.protocols.messages import Turn, conversation
from grm_server.grm.types import Message

CASES = json.loads((Path(__file__).parents[2] / "turns" / "cases.json").read_text())["cases"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_the_shared_cases(case: Any) -> None:
    expected = [tuple(turn) for turn in case["turns"]]
    assert [(turn.role, turn.content) for turn in server.as_messages(case["messages"])] == expected
    assert [(turn["role"], turn["content"]) for turn in client.as_messages(case["messages"])] == expected
    if "response" in case:
        assert server.as_response(case["messages"]) == client.as_response(case["messages"]) == case["response"]


WORDS = st.sampled_from(["", "a", "\n x", "\ud800"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["type", "text", "x", "content", "name", "function", "arguments", "refusal", "output", "input"]
            ),
            inner | st.sampled_from(["text", "image", "tool_result", "tool_use", "thinking", "refusal"]),
        )
    ),
    max_leaves=8,
)
MESSAGES = st.lists(
    st.dictionaries(
        st.sampled_from(
            [
                *("role", "type", "content", "name", "tool_calls", "function_call", "refusal", "audio"),
                *("tool_call_id", "output", "reasoning_content"),
            ]
        ),
        JSON | st.sampled_from(["system", "assistant", "tool", "developer", "message", "function_call", "x_output"]),
        max_size=5,
    ),
    max_size=4,
)


@given(MESSAGES)
def test_turns_of_any_shape_say_the_same_on_both_sides(messages: list[dict[str, Any]]) -> None:
    said = server.as_messages(messages)
    plain = [{"role": turn.role, "content": turn.content} for turn in said]
    assert client.as_messages(messages) == plain
    assert client.as_response(messages) == server.as_response(messages)
    # The client sends what it made of the turns, and the server does the same to it again.
    assert server.as_messages(plain) == said


@given(st.text(), st.text(min_size=1).filter(str.strip))
def test_a_turn_that_said_something_is_never_empty(name: str, word: str) -> None:
    for message in (
        {"content": word},
        {"content": [{"type": "text", "text": word}]},
        {"content": None, "refusal": word},
        {"content": None, "reasoning_content": word},
        {"content": None, "tool_calls": [{"function": {"name": name, "arguments": ""}}]},
        {"content": [{"type": word}]},
        {"audio": {"id": word}},
    ):
        assert server.as_response([{"role": "assistant", **message}])


def test_hostile_nesting_is_only_named() -> None:
    content: Any = "deep"
    for _ in range(50):
        content = [{"type": "tool_result", "content": content}]
    [message] = server.as_messages([{"role": "user", "content": content}])
    assert message == Message("tool", "[Tool result]")


def test_no_messages_are_an_empty_user_turn() -> None:
    """A response without a prompt is still judged."""
    assert conversation([]) == (Message("user", ""),)
    assert conversation([Turn(role="user", content="a")]) == (Message("user", "a"),)
