"""Write labelled trajectories as data for supervised fine-tuning of a judge (rejective fine-tuning).

Liu et al. 2025, arXiv 2504.02495, section 3.1: wrong trajectories and items that are too easy are dropped. Formats:

    trl            conversational prompt-completion rows; SFTTrainer trains on the completion only
                   https://huggingface.co/docs/trl/dataset_formats
    llamafactory   ShareGPT rows, and their entry in dataset_info.json
                   https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from grm_client.data.trajectories import ErrorRow, Item, ItemRow, LabelledSample


class Format(StrEnum):
    """Trainer that reads the file."""

    TRL = "trl"
    LLAMAFACTORY = "llamafactory"


class Turns(NamedTuple):
    """A trajectory as a conversation with the judge."""

    prompt: str
    """The judge's prompt, without the hint."""
    completion: str
    """The judge's output."""


Render = Callable[[Item, LabelledSample], Turns]
"""Renders a trajectory with the judge's template, which belongs to the server."""


class Written(NamedTuple):
    """Counts of `write_sft`."""

    examples: int
    """Trajectories written."""
    left_out: Counter[str]
    """Trajectories left out, by reason."""


def write_sft(rows: Iterable[ItemRow | ErrorRow], out: BinaryIO, form: Format, render: Render) -> Written:
    """Write the usable trajectories, one per line, in the order of the rows."""
    examples, left_out = 0, Counter[str]()
    for item in (row for row in rows if isinstance(row, ItemRow)):
        for sample in item.samples:
            reason = skip_reason(item, sample)
            if reason is None:
                example = as_example(render(item, sample), form)
                out.write(json.dumps(example, ensure_ascii=False).encode() + b"\n")
                examples += 1
            else:
                left_out[reason] += 1
    return Written(examples, left_out)


def skip_reason(item: Item, sample: LabelledSample) -> str | None:
    """Why a trajectory is left out, or None."""
    if sample.right is None:
        return "not judged"
    if not sample.right:
        return "wrong"
    if item.difficulty == "too_easy":
        return "too easy"
    # The scores are right, but it would teach the judge to stop in the middle of a sentence.
    return "cut at the token budget" if sample.finish_reason == "length" else None


def as_example(turns: Turns, form: Format) -> dict[str, Any]:
    """A row of the file."""
    if form is Format.TRL:
        return {
            "prompt": [{"role": "user", "content": turns.prompt}],
            "completion": [{"role": "assistant", "content": turns.completion}],
        }
    return {
        "conversations": [{"from": "human", "value": turns.prompt}, {"from": "gpt", "value": turns.completion}],
    }


def is_sft(first_line: bytes) -> bool:
    """Whether a file with this first line may be overwritten: it is empty or was written by `write_sft`."""
    starts = (b'{"prompt": [{"role": "user", ', b'{"conversations": [{"from": "human", ')
    return not first_line or first_line.startswith(starts)


def dataset_info(path: Path) -> str:
    """The entry for LLaMA-Factory's dataset_info.json. With an absolute path, `dataset_dir` does not matter."""
    entry = {"file_name": str(path.resolve()), "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    return json.dumps({path.name.partition(".")[0]: entry}, indent=2)
