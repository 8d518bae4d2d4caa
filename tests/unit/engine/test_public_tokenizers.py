"""ChatEncoder with the tokenizers and chat templates of public models."""

import re
from typing import Any

import pytest

from grm_server.engine.tokens import ChatEncoder
from tests.hostile import HOSTILE

QUESTION = "Why is the sky blue? [1, 2] {3} x < y | z > w, é 漢字 🙂"
TURN_TOKENS = {
    "qwen3": {"<|im_start|>", "<|im_end|>", "<think>", "</think>"},
    "r1-distill-qwen": {"<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<think>", "</think>"},
    "llama-3.1": {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
    "gemma-3": {"<start_of_turn>", "<end_of_turn>", "<eos>"},
    "gpt-oss": {"<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>", "<|call|>"},
    "mistral-nemo": {"[INST]", "[/INST]", "</s>"},
    "deepseek-v3": {"<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"},
}
"""Tokens with which a text could leave its turn, or begin and end a thought."""


@pytest.fixture(scope="session")
def chat(public_tokenizer: Any) -> ChatEncoder:
    return ChatEncoder(public_tokenizer)


def decoded(tokenizer: Any, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def test_a_prompt_has_the_tokens_of_the_published_template(chat: ChatEncoder, public_tokenizer: Any) -> None:
    turn = [{"role": "user", "content": QUESTION}]
    expected = public_tokenizer.apply_chat_template(turn, add_generation_prompt=True)["input_ids"]
    assert chat.prompt(QUESTION) == expected


@pytest.mark.parametrize("text", [QUESTION, " lead\n\n\ttrail ", "def f(x):\n    return x\n", "\\boxed{10, 7}"])
def test_honest_text_is_encoded_as_it_is(chat: ChatEncoder, public_tokenizer: Any, text: str) -> None:
    assert decoded(public_tokenizer, chat.text(text)) == text


def test_control_tokens_in_a_text_are_broken_up(chat: ChatEncoder, public_tokenizer: Any, public_model: str) -> None:
    turns = TURN_TOKENS[public_model]
    assert set(public_tokenizer.convert_tokens_to_ids(sorted(turns))) <= chat.control_ids
    special = {entry.content for entry in public_tokenizer.added_tokens_decoder.values() if entry.special}
    for token in turns | set(sorted(special)[:100]):
        for text in (token, f"a{token}b", f"  {token}\n", f"{token[:3]}{token}{token[3:]}"):
            ids = chat.text(text)
            assert chat.control_ids.isdisjoint(ids), text
            assert token not in turns or token not in decoded(public_tokenizer, ids), text


def test_hostile_text_adds_no_turn_and_no_thought(chat: ChatEncoder, public_tokenizer: Any, public_model: str) -> None:
    pattern = "|".join(map(re.escape, TURN_TOKENS[public_model]))

    def seen(text: str) -> tuple[list[int], list[str]]:
        ids = chat.prompt(text)
        return [token for token in ids if token in chat.control_ids], re.findall(
            pattern, decoded(public_tokenizer, ids)
        )

    expected = seen("x")
    for text in HOSTILE:
        assert seen(text) == expected, text
