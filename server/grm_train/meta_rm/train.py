"""Train a meta RM and write it down: the whole flow of `grm train-meta-rm`."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from grm_server.engine.artifacts import sha256
from grm_server.grm.prompts import JudgeTemplate
from grm_server.grm.types import Floats
from grm_server.meta_rm.card import MetaCard, template_digest
from grm_server.meta_rm.checkpoint import assemble, save_checkpoint, save_head
from grm_train.meta_rm import full
from grm_train.meta_rm.encoding import Encoded, encode
from grm_train.meta_rm.features import read_features
from grm_train.meta_rm.head import choose, fits
from grm_train.meta_rm.measure import Table, measure, tabulate
from grm_train.meta_rm.split import HELD_OUT
from grm_train.meta_rm.trajectories import Data

HEAD_FOLDER = "head"

Stage = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Begins a stage of so many steps; what it gives is told of steps done."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be trained, and on what."""

    source: Path
    """The trajectories."""
    data_name: str
    template: JudgeTemplate
    """The meta RM's."""
    base: str
    layers: tuple[int, ...] | None
    """Of the base, to choose among; None: a quarter, a half, three quarters and all of them, or all without a head."""
    head_only: bool
    schedule: full.Schedule
    max_tokens: int | None
    """None: the base's context."""
    seed: int
    work: Path
    """Where what an interrupted run has done is kept."""


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A meta RM, its logits, and how to write it."""

    layers: int
    logits: Floats
    """Of all trajectories; NaN for those that trained all weights, which nobody asks about."""
    save: Callable[[Path], None]
    """Into an empty folder."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What came of a job."""

    trained: Trained
    card: MetaCard
    left_out: Counter[str]
    """Trajectories by reason."""


def run(job: Job, data: Data, stage: Stage) -> Outcome:
    """Raises ValueError for data or a base that will not do, and OSError where there is no such model."""
    from transformers import AutoConfig, AutoTokenizer

    # Before the slow steps; fewer may be left when it is known how long they are.
    tabulate(data.trajectories, job.seed)
    config, tokenizer = AutoConfig.from_pretrained(job.base), AutoTokenizer.from_pretrained(job.base)
    layers = job.layers or default_layers(config.num_hidden_layers, job.head_only)
    if not job.head_only and len(layers) > 1:
        raise ValueError("without --head-only, --layers is one number: all weights are trained for one depth")
    if max(layers) > config.num_hidden_layers:
        raise ValueError(f"--layers: {job.base} has {config.num_hidden_layers} layers")
    max_tokens = job.max_tokens or config.max_position_embeddings
    with stage("encoding", len(data.trajectories)) as advance:
        examples, left_out = encode(tokenizer, data.trajectories, max_tokens, advance)
    table = tabulate([example.trajectory for example in examples], job.seed)
    folder = job.work / _key(job, config, layers, max_tokens)
    if job.head_only:
        trained = _head(job, layers, table, examples, folder, stage)
    else:
        trained = _full(job, layers[0], tokenizer, table, examples, folder)
    quality = measure(table, trained.logits)
    card = MetaCard(
        **quality.all.model_dump(),
        untied=quality.untied,
        platt=quality.platt,
        ece=quality.ece,
        prompts=data.prompts,
        trajectories=len(examples),
        data=job.data_name,
        base=Path(job.base).name if Path(job.base).is_dir() else job.base,
        judge=", ".join(data.judges),
        method="head" if job.head_only else "full",
        layers=trained.layers,
        seed=job.seed,
        held_out=HELD_OUT,
        template_sha256=template_digest(job.template.source),
        version=version("grm-server"),
    )
    return Outcome(trained, card, data.left_out + left_out)


def default_layers(depth: int, head_only: bool) -> tuple[int, ...]:
    """Of a base of that many."""
    return tuple(sorted({max(1, depth * quarter // 4) for quarter in (1, 2, 3, 4)})) if head_only else (depth,)


def _head(
    job: Job, layers: Sequence[int], table: Table, examples: Sequence[Encoded], folder: Path, stage: Stage
) -> Trained:
    with stage("reading", len(examples)) as advance:
        features = read_features(job.base, layers, examples, folder, advance)
    with stage("fitting", fits(len(layers))) as advance:
        train, selection = table.examples(features, "train"), table.examples(features, "selection")
        head = choose(train, selection, job.seed, advance)
    weight, kept = head.weight, layers[head.layer]

    def save(target: Path) -> None:
        assemble(job.base, weight, kept, target)
        (target / HEAD_FOLDER).mkdir()
        save_head(weight, target / HEAD_FOLDER)

    return Trained(kept, features[:, head.layer] @ weight, save)


def _full(job: Job, layers: int, tokenizer: Any, table: Table, examples: Sequence[Encoded], folder: Path) -> Trained:
    chosen = [examples[i] for i in table.where("train")]
    trainer = full.train(job.base, layers, tokenizer, chosen, job.schedule, job.seed, folder)
    others = np.concatenate([table.where("selection"), table.where("test")])
    logits = np.full(len(examples), np.nan)
    logits[others] = full.logits(trainer, [examples[i] for i in others])
    return Trained(
        layers,
        logits,
        lambda target: save_checkpoint(full.finished(trainer, job.base), tokenizer, target),
    )


def _key(job: Job, config: Any, layers: Sequence[int], max_tokens: int) -> str:
    """Another base, template, data or way to train has a folder of its own."""
    base = Path(job.base)
    files = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(base.glob("*"))]
    about = [job.base, files, config.to_json_string(), getattr(config, "_commit_hash", None), sha256(job.source)]
    how = [job.template.source, tuple(layers), max_tokens, job.head_only]
    # Features are the same for every split.
    once = [] if job.head_only else [job.seed, *job.schedule]
    return hashlib.sha256(json.dumps([about, how, once]).encode()).hexdigest()[:16]
