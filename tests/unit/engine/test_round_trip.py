"""A judge starts only with a tokenizer that keeps text and with a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from grm_server.engine.round_trip import check_round_trip
from grm_server.engine.tokens import ChatEncoder
from grm_server.engine.vllm.judge import judge_encoder
from grm_server.settings import EngineSettings

pytest.importorskip("transformers")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer(template: Any = CHATML) -> Any:
    """A byte tokenizer, which keeps every text."""
    from tests.trainers.tokens import byte_tokenizer

    loaded = byte_tokenizer()
    loaded.chat_template = template
    return loaded


def loaded_wrongly(folder: Path, **changes: Any) -> Any:
    """The byte tokenizer from a tokenizer.json with other parts."""
    from transformers import PreTrainedTokenizerFast

    tokenizer().save_pretrained(folder)
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    loaded = PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token="<|im_end|>")
    loaded.chat_template = CHATML
    return loaded


@pytest.mark.parametrize("name", ["LlamaTokenizer", "LlamaTokenizerFast"])
def test_a_byte_level_tokenizer_under_a_llama_class_is_refused(tmp_path: Path, name: str) -> None:
    """transformers 5 puts SentencePiece rules over its file. The class that the error names uses the file as it is."""
    from transformers import AutoTokenizer

    tokenizer().save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    right = json.loads(config.read_text())
    config.write_text(json.dumps(right | {"tokenizer_class": name}))
    wrong = AutoTokenizer.from_pretrained(tmp_path)
    assert wrong.decode(wrong.encode("Two words \u6f22\u5b57", add_special_tokens=False)) == "Twowords"
    with pytest.raises(ValueError, match=r"loses text \(spaces, .*CJK.*right-to-left\).* to PreTrainedTokenizerFast"):
        judge_encoder(wrong, EngineSettings())
    config.write_text(json.dumps(right | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    judge_encoder(AutoTokenizer.from_pretrained(tmp_path), EngineSettings())


@pytest.mark.parametrize(
    "normalizer",
    [{"type": "Lowercase"}, {"type": "StripAccents"}, {"type": "Replace", "pattern": {"String": "\n"}, "content": " "}],
)
def test_a_tokenizer_that_changes_text_is_refused(tmp_path: Path, normalizer: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="loses text"):
        ChatEncoder(loaded_wrongly(tmp_path, normalizer=normalizer))


def test_a_normaliser_to_composed_characters_is_accepted(tmp_path: Path) -> None:
    ChatEncoder(loaded_wrongly(tmp_path, normalizer={"type": "NFC"}))


def test_a_tokenizer_that_drops_control_characters_is_accepted() -> None:
    """The bundled model's does, and `sanitize` removes them before."""
    dropped = dict.fromkeys(map(ord, "\x04\x06\x13\x14\x16\x1d"))
    check_round_trip(lambda text: text.translate(dropped))


def test_a_space_in_front_is_accepted() -> None:
    check_round_trip(lambda text: f" {text}")


@pytest.mark.parametrize("template", [None, "", {"tool_use": CHATML}])
def test_a_judge_without_a_chat_template_is_refused(template: Any) -> None:
    with pytest.raises(ValueError, match=r"no chat template.*set engine\.chat_template"):
        judge_encoder(tokenizer(template), EngineSettings())


@pytest.mark.parametrize("own", [None, "{{ messages[0].content }}", {"default": "wrong", "tool_use": "wrong"}])
def test_the_chat_template_of_the_settings_replaces_the_models(tmp_path: Path, own: Any) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text(CHATML)
    loaded = tokenizer(own)
    chat = judge_encoder(loaded, EngineSettings(chat_template=file))
    assert loaded.decode(chat.prompt("Hello")) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    assert loaded.decode(chat.assistant_turn("Yes")) == "Yes<|im_end|>\n"


def test_of_several_chat_templates_the_default_is_used() -> None:
    loaded = tokenizer({"tool_use": "wrong", "default": CHATML})
    chat = judge_encoder(loaded, EngineSettings())
    assert loaded.decode(chat.prompt("Hello")) == "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_a_chat_template_that_hides_the_user_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "chat.jinja"
    file.write_text("Hello.")
    with pytest.raises(ValueError, match="exactly once"):
        judge_encoder(tokenizer(), EngineSettings(chat_template=file))
