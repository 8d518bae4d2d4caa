"""`grm train-meta-rm` from a file of trajectories to a checkpoint, on a tiny random model."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from grm_client.data.jsonl import read_lines
from grm_client.data.trajectories import read_rows
from grm_server.app.formats import judge_format, meta_template
from grm_server.cli import app
from grm_server.meta_rm import checkpoint as meta_checkpoint
from grm_server.meta_rm.card import MetaCard, load_card
from grm_server.meta_rm.checkpoint import load_head
from grm_train.meta_rm.encoding import Encoded, encode
from grm_train.meta_rm.features import read_features
from grm_train.meta_rm.trajectories import read_data
from tests.unit.grm_train.rows import as_file, rows

TEMPLATE = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n{{ turn['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ITEMS = 90


def planted(rng: random.Random, right: bool) -> str:
    """Right and wrong critiques use different characters, at the same length."""
    return "".join(rng.choices("abcd" if right else "wxyz", k=20))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For such a small model, more threads only cost time when other work runs on the machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama with random weights and a byte tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("base")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({char: index for index, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "trajectories.jsonl"
    path.write_bytes(as_file(rows(ITEMS, planted)))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train-meta-rm", *map(str, arguments)])


def the_card(folder: Path) -> MetaCard:
    card = load_card(folder)
    assert card is not None
    return card


def encoded(folder: Path, data: Path) -> list[Encoded]:
    from transformers import AutoTokenizer

    with data.open("rb") as file:
        parsed = read_data(read_rows(read_lines(file)), judge_format(), meta_template(None))
    return encode(AutoTokenizer.from_pretrained(folder), parsed.trajectories[:12], 2048)[0]


def plain_logits(folder: Path, examples: list[Encoded]) -> list[float]:
    """Logits from plain transformers: one trajectory at a time, nothing shared."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [float(model(torch.tensor([[*e.prompt, *e.answer]])).logits[0, 0]) for e in examples]


def test_a_head_on_frozen_layers(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "meta"
    done = run(data, "--base", base, "--out", out, "--head-only", "--data-name", "invented")
    assert done.exit_code == 0, done.output
    assert "It passes the gate." in done.output
    card = the_card(out)
    assert card.passes
    assert card.auc > 0.9
    assert card.auc > card.baselines.length
    assert (card.method, card.data, card.judge, card.base) == ("head", "invented", "judge", base.name)
    assert (card.prompts, card.trajectories) == (ITEMS, 4 * ITEMS)
    readme = (out / "README.md").read_text()
    assert f"{card.auc:.3f}" in readme
    assert "grm serve --model JUDGE --meta-rm" in readme
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == card.layers
    assert the_card(out / "head") == card
    # The checkpoint computes the same logits as head and features.
    examples = encoded(out, data)
    features = read_features(str(base), [1, 2], examples, tmp_path / "features", lambda _: None)
    expected = features[:, card.layers - 1] @ load_head(out / "head")
    np.testing.assert_allclose(plain_logits(out, examples), expected, rtol=1e-3, atol=1e-3)
    # Head and base are enough to assemble the checkpoint again.
    meta_checkpoint.main(str(base), str(out / "head"), str(tmp_path / "again"))
    assert the_card(tmp_path / "again") == card
    np.testing.assert_allclose(plain_logits(tmp_path / "again", examples), plain_logits(out, examples), rtol=1e-5)
    # A second run reuses the intermediate results and gives the same result.
    again = run(data, "--base", base, "--out", out, "--head-only", "--data-name", "invented")
    assert again.exit_code == 0, again.output
    assert the_card(out) == card


def test_a_head_on_fewer_layers(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "meta"
    done = run(data, "--base", base, "--out", out, "--head-only", "--layers", "1")
    assert done.exit_code == 0, done.output
    assert the_card(out).layers == 1
    assert json.loads((out / "config.json").read_text())["num_hidden_layers"] == 1
    features = read_features(str(base), [1], examples := encoded(out, data), tmp_path / "f", lambda _: None)
    expected = features[:, 0] @ load_head(out / "head")
    np.testing.assert_allclose(plain_logits(out, examples), expected, rtol=1e-3, atol=1e-3)


def test_all_weights(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "meta"
    arguments = (data, "--base", base, "--out", out, "--learning-rate", "3e-3", "--max-tokens", 2000)
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    card = the_card(out)
    assert (card.method, card.layers) == ("full", 2)
    assert not (out / "head").exists()
    examples = encoded(out, data)
    logits = plain_logits(out, examples)
    assert np.std(logits) > 0
    # A second run resumes from the last checkpoint, which is the end: it trains nothing.
    assert run(*arguments).exit_code == 0
    np.testing.assert_allclose(plain_logits(out, examples), logits, rtol=1e-4, atol=1e-4)
    assert the_card(out) == card


def test_trajectories_that_do_not_fit_are_left_out(base: Path, data: Path, tmp_path: Path) -> None:
    done = run(data, "--base", base, "--out", tmp_path / "meta", "--head-only", "--max-tokens", 100)
    assert done.exit_code == 2
    assert "has 0 prompts with both right and wrong trajectories" in done.output


def test_too_little_data_says_what_to_do(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "few.jsonl"
    path.write_bytes(as_file(rows(5, planted)))
    done = run(path, "--base", base, "--out", tmp_path / "meta", "--head-only")
    assert done.exit_code == 2
    assert "collect more requests" in done.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--layers", "1,x"], "positive integers separated by commas"),
        (["--layers", "0"], "positive integers separated by commas"),
        (["--layers", "3", "--head-only"], "has 2"),
        (["--layers", "1,2"], "must be one number"),
    ],
)
def test_invalid_layers_are_refused(base: Path, data: Path, tmp_path: Path, arguments: list[str], reason: str) -> None:
    done = run(data, "--base", base, "--out", tmp_path / "meta", *arguments)
    assert done.exit_code == 2
    assert reason in done.output


def test_a_folder_that_is_not_a_meta_rm_is_not_overwritten(base: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    done = run(data, "--base", base, "--out", tmp_path, "--head-only")
    assert done.exit_code == 2
    assert "choose another folder" in done.output
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_of_another_kind_is_refused(base: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.jsonl"
    path.write_text('{"query": "Why?"}\n')
    done = run(path, "--base", base, "--out", tmp_path / "meta", "--head-only")
    assert done.exit_code == 2
    assert "row 1 is not a row of `grm collect`" in done.output


def test_without_the_extra_packages_the_error_names_the_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sklearn", None)
    done = run(tmp_path / "x.jsonl", "--base", "b", "--out", tmp_path / "meta")
    assert done.exit_code == 2
    assert "pip install" in done.output
