"""Labelled trajectories as data for supervised fine-tuning of a judge (rejective fine-tuning).

Liu et al. 2025, arXiv 2504.02495, section 3.1: wrong trajectories are dropped, and items that are too easy. Formats:

    trl            conversational prompt-completion rows, of which SFTTrainer trains on the completion alone
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
    """Who is to read the file."""

    TRL = "trl"
    LLAMAFACTORY = "llamafactory"


class Turns(NamedTuple):
    """A trajectory as a conversation with the judge."""

    prompt: str
    """What the judge was asked, without the hint."""
    completion: str
    """What it said."""


Render = Callable[[Item, LabelledSample], Turns]
"""The judge's template is the server's."""


class Written(NamedTuple):
    """What became of the trajectories of a file."""

    examples: int
    left_out: Counter[str]
    """By reason."""


def write_sft(rows: Iterable[ItemRow | ErrorRow], out: BinaryIO, form: Format, render: Render) -> Written:
    """Write the trajectories that teach, one a line, in the order of the rows."""
    examples, left_out = 0, Counter[str]()
    for item in (row for row in rows if isinstance(row, ItemRow)):
        for sample in item.samples:
            reason = useless(item, sample)
            if reason is None:
                example = as_example(render(item, sample), form)
                out.write(json.dumps(example, ensure_ascii=False).encode() + b"\n")
                examples += 1
            else:
                left_out[reason] += 1
    return Written(examples, left_out)


def useless(item: Item, sample: LabelledSample) -> str | None:
    """Why a trajectory teaches nothing, or None."""
    if sample.right is None:
        return "not judged"
    if not sample.right:
        return "wrong"
    if item.difficulty == "too_easy":
        return "too easy"
    # Its scores are right, but it would teach the judge to break off in the middle of a sentence.
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
    """Whether a file that begins so is one of ours, or empty: one that may be written anew."""
    ours = (b'{"prompt": [{"role": "user", ', b'{"conversations": [{"from": "human", ')
    return not first_line or first_line.startswith(ours)


def dataset_info(path: Path) -> str:
    """The entry that LLaMA-Factory needs in its dataset_info.json; `dataset_dir` does not matter to a whole path."""
    entry = {"file_name": str(path.resolve()), "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    return json.dumps({path.name.partition(".")[0]: entry}, indent=2)
