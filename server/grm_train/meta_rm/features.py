"""Features of each trajectory: a frozen base's hidden states at the last token, after some of its layers.

The model's final norm is applied to each: the meta RM is the base cut to its first layers, and the norm follows the
last remaining layer.
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
"""Answers to one prompt per forward pass."""
CHUNK = 256
"""Trajectories per file of features, at least."""

Features = NDArray[np.float32]


def read_features(
    base: str, layers: Sequence[int], examples: Sequence[Encoded], folder: Path, on_done: Callable[[int], None]
) -> Features:
    """(m, layers, hidden size). Resumes from the files that an earlier run with the same input left in `folder`.

    on_done: called with the number of trajectories just finished.
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
    """Chunks of whole prompts: trajectories that share a prompt are never split."""
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
        examples = list(same)
        for start in range(0, len(examples), BATCH):
            yield examples[start : start + BATCH]


def _save(features: Features, path: Path) -> None:
    """Write atomically."""
    partial = path.with_suffix(".partial.npy")
    np.save(partial, features)
    partial.replace(path)


def _load(base: str, layers: int) -> Any:
    import torch
    from transformers import AutoModel
    from transformers.utils import logging

    # It would warn about the removed layers.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    on_gpu = torch.cuda.is_available()
    dtype = "auto" if on_gpu else torch.float32
    model = AutoModel.from_pretrained(base, config=cut_config(base, layers), dtype=dtype)
    if not hasattr(model, "norm"):
        raise ValueError(f"{type(model).__name__} has no final `norm`: take another base, or train without --head-only")
    return model.eval().to("cuda" if on_gpu else "cpu")


def _states(model: Any, layers: Sequence[int], batch: Sequence[Encoded]) -> Features:
    """(batch, layers, hidden size). The shared prompt is computed once."""
    import torch
    from transformers import DynamicCache

    lengths = [len(example.answer) for example in batch]
    # Padding is on the right, where no other token attends to it.
    padded = [[*example.answer, *[0] * (max(lengths) - len(example.answer))] for example in batch]
    with torch.inference_mode():
        prompt, answers = (torch.tensor(ids, device=model.device) for ids in ([batch[0].prompt], padded))
        cache = DynamicCache(config=model.config)
        model(input_ids=prompt, past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(len(batch))
        output = model(input_ids=answers, past_key_values=cache, use_cache=True, output_hidden_states=True)
        rows, last = torch.arange(len(batch), device=model.device), torch.tensor(lengths, device=model.device) - 1
        depth = model.config.num_hidden_layers
        states = [
            output.last_hidden_state[rows, last]
            if layer == depth
            else model.norm(output.hidden_states[layer][rows, last])
            for layer in layers
        ]
        features: Features = torch.stack(states, dim=1).float().cpu().numpy()
    return features
