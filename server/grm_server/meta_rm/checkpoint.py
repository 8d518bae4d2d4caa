"""A meta RM's checkpoint: a base model, whole or cut to its first layers, with one linear score on the last token.

    config.json, model.safetensors, tokenizer    as transformers writes `...ForSequenceClassification`; vLLM reads it
    meta_rm.json                                 the card (meta_rm.card)

    python -m grm_server.meta_rm.checkpoint BASE HEAD TARGET

assembles one from a base and a head, a folder of a few kilobytes with head.safetensors and meta_rm.json.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from grm_server.engine.tokens import ChatEncoder
from grm_server.grm.types import Floats
from grm_server.meta_rm.card import load_card, save_card

HEAD_FILE = "head.safetensors"
_WEIGHT = "weight"


def cut_config(base: str, layers: int | None) -> Any:
    """The base's configuration with only its first `layers` layers; None keeps all.

    Raises ValueError if the base has fewer, and OSError if there is no such model.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(base)
    depth = config.num_hidden_layers
    if layers is None or layers == depth:
        return config
    if not 1 <= layers <= depth:
        raise ValueError(f"{base} has {depth} layers, not {layers}")
    for name, value in config.to_dict().items():
        # Lists with one entry per layer, such as `layer_types`.
        if isinstance(value, list) and len(value) == depth:
            setattr(config, name, value[:layers])
    config.num_hidden_layers = layers
    return config


def pad_token_id(tokenizer: Any) -> int:
    """A padding token that never ends a trajectory.

    transformers scores the last token that is not padding. Many models pad with the end-of-turn token, which is exactly
    the one to score.
    """
    last = ChatEncoder(tokenizer).assistant_turn("}")[-1]
    named = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    pad = next((token for token in (*named, *tokenizer.all_special_ids) if token not in (None, last)), None)
    if pad is None:
        raise ValueError("the tokenizer has no special token that can be used for padding")
    return int(pad)


def classifier(base: str, layers: int | None, tokenizer: Any, dtype: Any) -> Any:
    """The base with an untrained scalar score. Raises ValueError if transformers has no such model for this base."""
    from transformers import AutoModelForSequenceClassification

    config = cut_config(base, layers)
    config.num_labels = 1
    config.pad_token_id = pad_token_id(tokenizer)
    model = AutoModelForSequenceClassification.from_pretrained(base, config=config, dtype=dtype)
    if getattr(getattr(model, "score", None), "bias", True) is not None:
        # BERT-like models score their first token, with a head of their own.
        raise ValueError(f"{type(model).__name__} has no linear `score` on the last token: use a decoder as the base")
    return model


def save_checkpoint(model: Any, tokenizer: Any, target: Path) -> None:
    """Write weights, configuration and tokenizer. The score stays float32, because vLLM computes it in float32."""
    model.score.float()
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def assemble(base: str, weight: Floats, layers: int, target: Path) -> None:
    """Write the checkpoint of a head. weight: (hidden size,). Raises ValueError if the head is for another model."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = classifier(base, layers, tokenizer, "auto")
    if model.score.weight.shape != (1, len(weight)):
        raise ValueError(f"the head is for {len(weight)} features, {base} has {model.score.weight.shape[1]}")
    model.score.weight = torch.nn.Parameter(torch.tensor(weight[None], dtype=torch.float32))
    save_checkpoint(model, tokenizer, target)


def save_head(weight: Floats, folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({_WEIGHT: weight.astype(np.float32)}, folder / HEAD_FILE)


def load_head(folder: Path) -> Floats:
    """(hidden size,). Raises OSError."""
    from safetensors.numpy import load_file

    weight: Floats = load_file(folder / HEAD_FILE)[_WEIGHT].astype(np.float64)
    return weight


def main(base: str, head: str, target: str) -> None:
    from transformers.utils import logging

    # It would warn about the removed layers and the missing score.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    card = load_card(Path(head))
    if card is None:
        raise FileNotFoundError(f"{head} has no card (meta_rm.json)")
    assemble(base, load_head(Path(head)), card.layers, Path(target))
    save_card(card, Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
