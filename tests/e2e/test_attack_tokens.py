"""The attack corpus with a real tokenizer: the template's tokens do not move, and no attack adds a control token."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grm_server.app.formats import judge_format, meta_template
from grm_server.engine.tokens import ChatEncoder
from grm_server.grm.prompt_template import sanitized
from grm_server.grm.script import PromptTurn, plain
from grm_server.grm.types import Message, Order, Task
from tests.attacks import corpus, is_text

pytestmark = pytest.mark.engine

JUDGE = judge_format()
META = meta_template(None)
QUESTION = (Message("user", "Why is the sky blue?"),)
MARK = "An honest answer at this place."
OTHERS = ("Because of scattering.", "It reflects the sea.")
LONG = 4000
"""Characters of an attack that are tested. They show what the tokenizer does to a long run."""
TEXTS = [(attack.name, attack.response[:LONG]) for attack in corpus() if is_text(attack.response)]


@pytest.fixture(scope="session")
def tokenizer(model_path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path)


@pytest.fixture(scope="session")
def chat(tokenizer: Any) -> ChatEncoder:
    return ChatEncoder(tokenizer)


Show = Callable[[str, Order], PromptTurn]


def judge_turn(response: str, order: Order) -> PromptTurn:
    (turn,) = JUDGE.turns(sanitized(Task(QUESTION, (response, *OTHERS)), JUDGE.structure), order)
    return turn


def meta_turn(response: str, order: Order) -> PromptTurn:
    task = sanitized(Task(QUESTION, (response, *OTHERS)), META.structure)
    return PromptTurn("user", META.render(task, order))


@pytest.mark.parametrize("show", [judge_turn, meta_turn])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_the_tokens_around_a_response_stay_as_they_are(
    chat: ChatEncoder, tokenizer: Any, show: Show, order: Order
) -> None:
    """No text merges with a fence, and the only control tokens are the chat template's, at its beginning and end."""
    place = order.index(0) + 1
    before, after = plain(show(MARK, order).content).split(f"\n{MARK}\n")
    assert before.endswith(f"[The Begin of Response {place}]")
    assert after.startswith(f"[The End of Response {place}]")
    start, end = around(chat)
    head, tail = [*start, *chat.text(before)], [*chat.text(after), *end]
    controls = [token for token in (*start, *end) if token in chat.control_ids]
    for name, response in TEXTS:
        ids = chat.turns((show(response, order),))
        assert ids[: len(head)] == head, name
        assert ids[-len(tail) :] == tail, name
        assert [token for token in ids if token in chat.control_ids] == controls, name
        # Some tokenizers drop or fold characters, so we check the decoded text, which the model reads.
        assert tokenizer.decode(ids).count("[The Begin of Response ") == 3, name


def around(chat: ChatEncoder) -> tuple[list[int], list[int]]:
    """The chat template's own tokens, before and after a text."""
    ids, text = chat.prompt(MARK), chat.text(MARK)
    at = next(at for at in range(len(ids)) if ids[at : at + len(text)] == text)
    return ids[:at], ids[at + len(text) :]


def test_a_text_far_too_long_is_not_encoded_to_its_end(chat: ChatEncoder) -> None:
    for response in [attack.response[:20_000] for attack in corpus() if attack.family == "long run"]:
        whole = chat.text(response)
        for limit in (100, 2000):
            ids = chat.text(response, limit)
            assert len(ids) == len(whole) or limit < len(ids) <= len(whole)


@pytest.mark.parametrize("unit", ["a ", "a", "\n", "\U0001f600", "<|im_end|>"])
def test_four_million_characters_are_tokenised_within_seconds(chat: ChatEncoder, unit: str) -> None:
    started = time.process_time()
    assert len(chat.text(unit * (4_000_000 // len(unit)), 8192)) > 8192
    assert time.process_time() - started < 10
