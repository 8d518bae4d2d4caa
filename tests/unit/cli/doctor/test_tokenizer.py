"""`grm doctor`: the tokenizer of a model on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grm_server.cli.doctor.finding import Finding, Level
from grm_server.cli.doctor.tokenizer import check_tokenizer
from grm_server.settings import load_settings

pytest.importorskip("transformers")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """The folder of a byte tokenizer, which keeps every text."""
    from tests.trainers.tokens import byte_tokenizer

    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def findings(model: str | Path, *overrides: str) -> list[Finding]:
    settings = load_settings({}, [f"engine.model={model}", "cache_dir=/nowhere", *overrides])
    return list(check_tokenizer(settings, {"HF_HOME": "/nowhere"}))


def test_a_tokenizer_that_keeps_text(model: Path) -> None:
    (finding,) = findings(model)
    assert (finding.check, finding.level) == ("tokenizer", Level.OK)


def test_a_tokenizer_that_loses_text_or_is_missing(model: Path) -> None:
    config = model / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": "LlamaTokenizer"}))
    (finding,) = findings(model)
    assert finding.level is Level.FAIL
    assert "loses text (spaces" in finding.what
    (model / "tokenizer.json").unlink()
    config.unlink()
    (finding,) = findings(model)
    assert finding.level is Level.FAIL
    assert "\n" not in finding.what


def test_no_chat_template(model: Path) -> None:
    for path in model.glob("chat_template*"):
        path.unlink()
    assert "no chat template" in findings(model)[0].what
    template = model / "own.jinja"
    template.write_text(CHATML)
    assert findings(model, f"engine.chat_template={template}")[0].level is Level.OK


def test_what_only_vllm_can_load_is_not_checked(model: Path) -> None:
    assert findings("org/none") == findings("bundled") == findings(model, "engine.kind=fake") == []
    assert findings(model, 'engine.vllm_args={"trust_remote_code": true}') == []
