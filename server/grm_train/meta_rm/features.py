"""What a frozen base makes of each trajectory: its hidden states at the last token, after some of its layers.

Each is seen through the model's final norm: the meta RM is the base cut to its first layers, and that norm comes after
the last one that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grm_server.meta_rm.checkpoint import cut_config
from grm_train.meta_rm.encoding import Encoded

BATCH = 16
"""Answers to one prompt that are read at once."""
CHUNK = 256
"""Trajectories, at least, whose features are saved together."""

Features = NDArray[np.float32]


def read_features(
    base: str, layers: Sequence[int], examples: Sequence[Encoded], folder: Path, on_done: Callable[[int], None]
) -> Features:
    """(m, layers, hidden size). What `folder` holds of an earlier run on the same is not computed again.

    on_done: told how many more trajectories are done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = None
    parts: list[Features] = []
    for number, chunk in enumerate(_chunks(examples)):
        path = folder / f"{number:06}.npy"
        if not path.exists():
            model = model or _load(base, max(layers))
            _save(np.concatenate([_states(model, layers, batch) for batch in _batches(chunk)]), path)
        parts.append(np.load(path))
        on_done(len(chunk))
    return np.concatenate(parts)


def _chunks(examples: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    """Whole prompts, each read once."""
    chunk: list[Encoded] = []
    for _, same in groupby(examples, key=lambda example: id(example.prompt)):
        chunk += same
        if len(chunk) >= CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _batches(chunk: Sequence[Encoded]) -> Iterator[list[Encoded]]:
    for _, same in groupby(chunk, key=lambda example: id(example.prompt)):
        of_prompt = list(same)
        for start in range(0, len(of_prompt), BATCH):
            yield of_prompt[start : start + BATCH]


def _save(features: Features, path: Path) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial.npy")
    np.save(partial, features)
    partial.replace(path)


def _load(base: str, layers: int) -> Any:
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    # It would warn of the layers that are left out.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    dtype = "auto" if on_gpu else torch.float32
    model = AutoModel.from_pretrained(base, config=cut_config(base, layers), dtype=dtype)
    if not hasattr(model, "norm"):
        raise ValueError(f"{type(model).__name__} has no final `norm`: take another base, or train without --head-only")
    return model.eval().to("cuda" if on_gpu else "cpu")


def _states(model: Any, layers: Sequence[int], batch: Sequence[Encoded]) -> Features:
    """(batch, layers, hidden size). The prompt, which all share, is read once."""
    import torch
    from transformers import DynamicCache

    lengths = [len(example.answer) for example in batch]
    # Padding stands on the right, where no other token sees it.
    padded = [[*example.answer, *[0] * (max(lengths) - len(example.answer))] for example in batch]
    with torch.inference_mode():
        prompt, answers = (torch.tensor(ids, device=model.device) for ids in ([batch[0].prompt], padded))
        cache = DynamicCache(config=model.config)
        model(input_ids=prompt, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(batch))
        read = model(input_ids=answers, past_key_values=cache, use_cache=True, output_hidden_states=True)
        rows, last = torch.arange(len(batch), device=model.device), torch.tensor(lengths, device=model.device) - 1
        depth = model.config.num_hidden_layers
        states = [
            read.last_hidden_state[rows, last] if layer == depth else model.norm(read.hidden_states[layer][rows, last])
            for layer in layers
        ]
        features: Features = torch.stack(states, dim=1).float().cpu().numpy()
    return features
