"""Un-templating of text that nobody's template wrote: it never raises, and never says what was not there."""

import time
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grm_server.api.protocols.chat_formats import ROLES, turns_of
from grm_server.api.protocols.untemplate import (
    content_text,
    response_after,
    split_last_turn,
    to_messages,
    trimmed_response,
    untemplate,
)
from grm_server.grm.types import Message
from tests.unit.api.chat_templates import FORMATS, Turns, Write, conversations

MARKS = (
    *("<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|begin_of_text|>"),
    *("<|header_start|>", "<|header_end|>", "<|eot|>", "<start_of_turn>", "<end_of_turn>", "<bos>", "<eos>", "<pad>"),
    *("<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<|User|>"),
    *("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"),
    *("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "\n\nUser:", "\n\nAssistant:", "User:", "<think>", "</think>"),
    *(
        "user\n",
        "assistant\n",
        "system\n",
        "model\n",
        "<|",
        "|>",
        "<｜",
        "[",
        "<",
        " ",
        "\n",
        "\t",
        "\r",
        "\u2028",
        "\x00",
    ),
)
ANYTHING = st.lists(st.sampled_from(MARKS) | st.text(st.characters(exclude_categories=()), max_size=6)).map("".join)


def assert_found_in_order(pieces: Iterable[str], text: str) -> None:
    """Each piece stands in the text, behind the one before it."""
    at = 0
    for piece in pieces:
        found = text.find(piece, at)
        assert found >= 0, (piece, text)
        at = found + len(piece)


@given(ANYTHING)
@example("\ud800<|im_start|>user\n\udfff")
def test_a_conversation_is_what_stood_there(text: str) -> None:
    messages = untemplate(text)
    assert messages
    assert all(message.role in ("system", "user", "assistant") for message in messages)
    assert_found_in_order((message.content for message in messages), text)
    turns = turns_of(text)
    assert [text[turn.start : turn.start + len(turn.text)] for turn in turns] == [turn.text for turn in turns]


@given(ANYTHING)
def test_what_is_parted_is_what_stood_there(text: str) -> None:
    parted = split_last_turn(text)
    if parted is not None:
        messages, answer = parted
        assert_found_in_order([*(message.content for message in messages), answer], text)


@given(ANYTHING, ANYTHING, st.integers(0, 60))
def test_a_response_is_a_piece_of_what_the_trainer_sent(prompt: str, answer: str, cut: int) -> None:
    for query in (answer, prompt + answer, (prompt + answer)[cut:], " " + prompt + " " + answer):
        assert response_after(prompt, query) in query
        assert response_after(prompt[cut:], query) in query


@given(ANYTHING, ANYTHING)
def test_whatever_the_policy_writes_is_its_response(prompt: str, answer: str) -> None:
    """Where the prompt came back as it was sent, nothing in the answer can move the line between the two."""
    found = response_after(prompt, prompt + answer)
    assert found == trimmed_response(answer)
    assert found in answer


@pytest.mark.parametrize("write", FORMATS)
@settings(max_examples=12)
@given(turns=conversations(), answer=ANYTHING)
def test_a_prompt_cut_at_every_place(write: Write, turns: Turns, answer: str) -> None:
    """Also within a mark. What is found stood there, and the last turn is whole as long as its header is."""
    whole = write(turns)
    begins = len(write([*turns[:-1], ("user", "(here)")]).partition("(here)")[0])
    for cut in range(len(whole)):
        messages = untemplate(whole[cut:])
        assert_found_in_order((message.content for message in messages), whole[cut:])
        if cut < begins - len("<|start_header_id|>user<|end_header_id|>\n\n"):
            assert messages[-1] == Message("user", turns[-1][1])
        split_last_turn(whole[cut:] + answer)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANYTHING,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "text", "x"]), inner),
    max_leaves=5,
)


@given(st.lists(st.dictionaries(st.sampled_from(["role", "content", "x"]), JSON | st.sampled_from([*ROLES, "tool"]))))
def test_messages_of_any_shape(messages: list[dict[str, object]]) -> None:
    found = to_messages(messages)
    assert len(found) == max(1, len(messages))
    assert all(isinstance(message.content, str) for message in found)
    assert all(isinstance(content_text(message), str) for message in messages)


@pytest.mark.parametrize("unit", MARKS)
def test_a_run_of_marks_costs_linear_time(unit: str) -> None:
    """The bound is of another order than what 50 000 letters cost, 0.1 s, and what quadratic time would: minutes."""
    text = unit * (50_000 // len(unit))
    started = time.process_time()
    for said in (text, "<|im_start|>user\n" + text):
        untemplate(said)
        split_last_turn(said)
    response_after(text[: len(text) // 2] + "x", text)
    response_after(text, "x" + text)
    assert time.process_time() - started < 5


def test_more_turns_than_a_conversation_has_are_text() -> None:
    few, many = "<|im_start|>user\nx" * 4000, "<|im_start|>user\nx" * 5000
    assert len(untemplate(few)) == 4000
    [message] = untemplate(many)
    assert message.content == many
    assert split_last_turn(many) is None
