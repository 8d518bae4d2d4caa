"""Train all weights of the base, with transformers' Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from grm_server.grm.types import Floats
from grm_server.meta_rm.checkpoint import classifier
from grm_train.meta_rm.encoding import Encoded


class Schedule(NamedTuple):
    """Training schedule."""

    epochs: float = 1.0
    learning_rate: float = 1e-5
    batch: int = 4
    """Trajectories in memory at once, per device."""
    accumulate: int = 8
    """Batches per optimizer step."""


def train(
    base: str,
    layers: int,
    tokenizer: Any,
    examples: Sequence[Encoded],
    schedule: Schedule,
    seed: int,
    folder: Path,
) -> Any:
    """A Trainer with the trained model. Resumes from the last checkpoint in `folder`, if there is one."""
    import torch
    from transformers import Trainer, TrainingArguments, set_seed
    from transformers.trainer_utils import get_last_checkpoint

    # The score head is initialised at random.
    set_seed(seed)
    model = classifier(base, layers, tokenizer, torch.float32)
    # Binary cross-entropy. With one label, transformers would use the squared error.
    model.config.problem_type = "multi_label_classification"
    on_gpu = torch.cuda.is_available()
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=schedule.epochs,
        learning_rate=schedule.learning_rate,
        per_device_train_batch_size=schedule.batch,
        per_device_eval_batch_size=schedule.batch,
        gradient_accumulation_steps=schedule.accumulate,
        warmup_steps=0.03,
        bf16=on_gpu,
        gradient_checkpointing=on_gpu,
        dataloader_pin_memory=on_gpu,
        save_steps=0.1,
        save_total_limit=1,
        logging_steps=10,
        report_to="none",
        seed=seed,
        # The examples are lists of tokens, not columns of a dataset.
        remove_unused_columns=False,
    )
    pad = model.config.pad_token_id
    trainer = Trainer(model, arguments, data_collator=lambda batch: _collate(batch, pad), train_dataset=list(examples))
    trainer.train(resume_from_checkpoint=get_last_checkpoint(folder) if folder.exists() else None)
    return trainer


def logits(trainer: Any, examples: Sequence[Encoded]) -> Floats:
    """(m,)"""
    result: Floats = np.asarray(trainer.predict(list(examples)).predictions, dtype=float).reshape(-1)
    return result


def _collate(batch: Sequence[Encoded], pad: int) -> dict[str, Any]:
    """pad: the token that `classifier` ignores."""
    import torch

    rows = [[*example.prompt, *example.answer] for example in batch]
    width = max(map(len, rows))
    return {
        "input_ids": torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        "labels": torch.tensor([[float(example.trajectory.right)] for example in batch]),
    }


def trained_model(trainer: Any, base: str) -> Any:
    """The trained model, in the base's dtype."""
    from transformers import AutoConfig

    return trainer.model.to(AutoConfig.from_pretrained(base).dtype)
