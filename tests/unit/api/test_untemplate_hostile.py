"""Un-templating of hostile text never raises and never invents text."""

import re
import time
from collections.abc import Iterable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from grm_server.api.protocols.chat_formats import turns_of
from grm_server.api.protocols.untemplate import (
    response_after,
    split_last_turn,
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
    *(
        "<|im_sep|>",
        "<|im_user|>user<|im_middle|>",
        "<|start|>assistant<|channel|>",
        "<|message|>",
        "<|channel|>analysis",
    ),
    *("<|START_OF_TURN_TOKEN|><|USER_TOKEN|>", "<|start_of_role|>user<|end_of_role|>", "[|user|]", "<|turn>model\n"),
    *("<seed:bos>user\n", "]~b]ai\n", "<SPECIAL_11>User\n", "<｜hy_User｜>", "<reserved_107>", "<|end_of_turn|>"),
    *("GPT4 Correct User:", "\n### Instruction:\n", "\n### Response:\n", " USER: ", " ASSISTANT:", "<|extra_0|>"),
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
    """The text contains each piece, after the one before it."""
    at = 0
    for piece in pieces:
        start = text.find(piece, at)
        assert start >= 0, (piece, text)
        at = start + len(piece)


def assert_text_of(text: str, response: str) -> None:
    """Responses in harmony's channels are joined, with think tags around the thoughts; others are part of the text."""
    if "<|message|>" in text:
        assert_found_in_order(re.split(r"</?think>|\n", response), text)
    else:
        assert response in text


@given(ANYTHING)
@example("\ud800<|im_start|>user\n\udfff")
def test_a_conversation_holds_only_text_of_the_prompt(text: str) -> None:
    messages = untemplate(text)
    assert messages
    assert all(message.role in ("system", "user", "assistant", "tool") for message in messages)
    assert_found_in_order((message.content for message in messages), text)
    turns = turns_of(text)
    assert [text[turn.start : turn.start + len(turn.text)] for turn in turns] == [turn.text for turn in turns]


@given(ANYTHING)
def test_separated_turns_hold_only_text_of_the_input(text: str) -> None:
    separated = split_last_turn(text)
    if separated is not None:
        messages, answer = separated
        assert_found_in_order([*(message.content for message in messages), answer], text)


@given(ANYTHING, ANYTHING, st.integers(0, 60))
def test_a_response_is_part_of_the_trainers_text(prompt: str, answer: str, cut: int) -> None:
    for query in (answer, prompt + answer, (prompt + answer)[cut:], " " + prompt + " " + answer):
        assert_text_of(query, response_after(prompt, query))
        assert_text_of(query, response_after(prompt[cut:], query))


@given(ANYTHING, ANYTHING)
@example("", "<|channel|>analysis<|im_start|>")
@example("", "<|channel|>analysis<|message|>thought<|end|><|start|>assistant<|channel|>final<|message|>answer")
def test_whatever_the_policy_writes_is_its_response(prompt: str, answer: str) -> None:
    """If the query repeats the prompt exactly, no text in the answer can shift the boundary."""
    response = response_after(prompt, prompt + answer)
    assert response == trimmed_response(answer)
    assert_text_of(answer, response)


@pytest.mark.parametrize("write", FORMATS)
@settings(max_examples=12)
@given(turns=conversations(), answer=ANYTHING)
def test_a_prompt_truncated_at_every_index(write: Write, turns: Turns, answer: str) -> None:
    """Also inside a special token. All results are from the text, and the last turn is whole if its header is."""
    whole = write(turns)
    begins = len(write([*turns[:-1], ("user", "(here)")]).partition("(here)")[0])
    for cut in range(len(whole)):
        messages = untemplate(whole[cut:])
        assert_found_in_order((message.content for message in messages), whole[cut:])
        if cut < begins - len("<|start_header_id|>user<|end_header_id|>\n\n"):
            assert messages[-1] == Message("user", turns[-1][1])
        split_last_turn(whole[cut:] + answer)


@pytest.mark.no_cover
@pytest.mark.parametrize("unit", MARKS)
def test_a_run_of_special_tokens_costs_linear_time(unit: str) -> None:
    """Linear time takes 0.1 s here. A regex that backtracks over the whole text takes 0.9 s in each of these calls."""
    text = unit * (20_000 // len(unit))
    started = time.process_time()
    for hostile in (text, "<|im_start|>user\n" + text):
        untemplate(hostile)
        split_last_turn(hostile)
    response_after(text[: len(text) // 2] + "x", text)
    response_after(text, "x" + text)
    assert time.process_time() - started < 1


def test_text_with_too_many_turns_is_one_user_turn() -> None:
    few, many = "<|im_start|>user\nx" * 4000, "<|im_start|>user\nx" * 5000
    assert len(untemplate(few)) == 4000
    [message] = untemplate(many)
    assert message.content == many
    assert split_last_turn(many) is None
