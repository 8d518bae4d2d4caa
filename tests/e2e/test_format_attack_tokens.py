"""Control tokens of a thought in hostile text: added tokens that are not special, as Qwen3 has them, and harmony's."""

from typing import Any

import pytest

from grm_server.engine.script_tokens import tokenized
from grm_server.engine.tokens import ChatEncoder
from grm_server.grm.formats import FormatFile
from grm_server.grm.presets import presets
from grm_server.grm.prompts import JudgeFormat
from grm_server.grm.script import Piece
from tests.attacks import corpus
from tests.attacks.formats import forgeries, shown

pytestmark = pytest.mark.engine

MARK = "An honest answer at this place."
FILES = {file.name: file for file in presets()}
THINKING = [name for name, file in FILES.items() if file.thought is not None]
QWEN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
HARMONY = (
    "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|channel|>analysis<|message|>{% endif %}"
)
SPECIAL_TOKENS = [attack for attack in corpus() if attack.family == "special token"]


def encoder(template: str, special: list[str], added: list[str]) -> ChatEncoder:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer: Any = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=special[-1])
    tokenizer.add_special_tokens({"additional_special_tokens": special[:-1]})
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    return ChatEncoder(tokenizer, template)


@pytest.fixture(scope="module")
def qwen() -> ChatEncoder:
    return encoder(QWEN, ["<|im_start|>", "<|im_end|>"], ["<think>", "</think>"])


@pytest.fixture(scope="module")
def harmony() -> ChatEncoder:
    return encoder(HARMONY, ["<|start|>", "<|channel|>", "<|message|>", "<|return|>", "<|end|>"], [])


def controls(chat: ChatEncoder, form: JudgeFormat, response: str) -> list[int]:
    """The control tokens of a prompt and its leads."""
    prepared = tokenized(chat, shown(form, response), 100_000)
    leads = [token for lead in prepared.leads for token in (*lead.ids, *lead.if_unmarked)]
    return [token for token in (*prepared.prompt, *leads) if token in chat.control_ids]


@pytest.mark.parametrize("name", THINKING)
def test_no_response_writes_a_control_token_of_a_thought(qwen: ChatEncoder, name: str) -> None:
    form = JudgeFormat(FILES[name])
    expected = controls(qwen, form, MARK)
    assert len(qwen.control_ids) == 4
    attacks = [attack for attack in forgeries(form) if attack.family in ("thought", "everything")]
    assert attacks
    for attack in (*attacks, *SPECIAL_TOKENS):
        assert controls(qwen, form, attack.response) == expected, attack.name


def test_no_response_writes_a_channel_of_harmony(harmony: ChatEncoder) -> None:
    thought = {"opens": "<|channel|>analysis<|message|>", "closes": "<|end|>", "when_cut": "<|end|>", "when_off": ""}
    thought["after"] = "<|start|>assistant<|channel|>final<|message|>"
    form = JudgeFormat(FormatFile.model_validate({**FILES["thinking"].model_dump(), "thought": thought}))
    expected = controls(harmony, form, MARK)
    for attack in (*forgeries(form), *SPECIAL_TOKENS):
        assert controls(harmony, form, attack.response) == expected, attack.name


def test_only_inserted_text_is_broken_up(qwen: ChatEncoder) -> None:
    mark = "</think>"
    of_format, hostile = qwen.content((Piece(mark),)), qwen.content((Piece(mark, inserted=True),))
    assert len(of_format) == 1
    assert of_format[0] in qwen.control_ids
    assert qwen.control_ids.isdisjoint(hostile)
    assert len(qwen.content((Piece("</thi"), Piece("nk>", inserted=True)))) > 1
