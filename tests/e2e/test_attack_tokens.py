"""The attack corpus with a real tokenizer: the template's tokens do not move, and no attack adds a control token."""

import time
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from grm_server.engine.tokens import ChatEncoder
from grm_server.grm.prompts import JudgeTemplate, SanitizedTask, sanitized
from grm_server.grm.types import Message, Task
from tests.attacks import corpus, is_text

pytestmark = pytest.mark.engine

TEMPLATES = files("grm_server.grm") / "templates"
JUDGE = JudgeTemplate((TEMPLATES / "judge.txt").read_text())
META = JudgeTemplate((TEMPLATES / "meta.txt").read_text(), principles=False)
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


def task(response: str, template: JudgeTemplate) -> SanitizedTask:
    return sanitized(Task(QUESTION, (response, *OTHERS)), template)


@pytest.mark.parametrize("template", [JUDGE, META], ids=["judge", "meta"])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_the_tokens_around_a_response_stay_as_they_are(
    chat: ChatEncoder, tokenizer: Any, template: JudgeTemplate, order: tuple[int, ...]
) -> None:
    """No text merges with a fence, and the only control tokens are the chat template's, at its beginning and end."""
    place = order.index(0) + 1
    before, after = template.render(task(MARK, template), order).split(f"\n{MARK}\n")
    assert before.endswith(f"[The Begin of Response {place}]")
    assert after.startswith(f"[The End of Response {place}]")
    start, end = around(chat)
    head, tail = [*start, *chat.text(before)], [*chat.text(after), *end]
    controls = [token for token in (*start, *end) if token in chat.control_ids]
    for name, response in TEXTS:
        ids = chat.prompt(template.render(task(response, template), order))
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
