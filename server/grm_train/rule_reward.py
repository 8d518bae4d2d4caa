"""The rule reward of a judge in any format: +1 if its verdict picks the label, else -1.

`grm_client.rule_reward` explains the rule, and reads the built-in format without the server's package. This one reads a
completion as the server would in the judge's format: after its thought, the last verdict, under the format's grammar.

    TRL     GRPOTrainer(..., reward_funcs=grm_rule_reward)
    verl    reward.custom_reward_function.path=pkg://grm_train.rule_reward     (function `compute_score`)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, SupportsIndex

from grm_client.data.trajectories import BUILT_IN
from grm_client.rule_reward import NEUTRAL, reward_or_none
from grm_server.grm.prompts import JudgeFormat
from grm_server.grm.types import FailureReason
from grm_train.completions import read_completion
from grm_train.formats import load


def grm_rule_reward(
    completions: Sequence[str | Sequence[Mapping[str, Any]]],
    label: Sequence[SupportsIndex],
    num_responses: Sequence[SupportsIndex] | None = None,
    format: str | Sequence[str] | None = None,
    **_: object,
) -> list[float | None]:
    """+1.0 for each completion whose verdict picks the label, else -1.0. A reward function for TRL's GRPO.

    completions, label: as of `grm_client.rule_reward.grm_rule_reward`.
    num_responses: dataset column, number of responses shown. Needed unless the format always shows as many.
    format: a preset or a format file; or a dataset column of them. Default: GRM_FORMAT, or the built-in format.

    A completion with an invalid label, or that is no text, gets None, which TRL leaves out, and a warning. Raises
    ValueError for columns of different lengths, a missing `num_responses`, and a format that cannot be loaded.
    """
    names = [format] * len(completions) if format is None or isinstance(format, str) else format
    readers = [_reader(_name(name)) for name in names]
    if num_responses is None and any(reader.fixed is None for reader in readers):
        raise ValueError("the rule reward needs the column num_responses: how many responses each prompt shows")
    counts: Sequence[SupportsIndex | None] = [None] * len(completions) if num_responses is None else num_responses
    rows = zip(completions, label, counts, readers, strict=True)
    return [reward_or_none(completion, best, n, reader.read) for completion, best, n, reader in rows]


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: SupportsIndex | str,
    extra_info: Mapping[str, Any] | None = None,
    format: str | None = None,
    **_: object,
) -> float:
    """`grm_rule_reward` of one completion. A custom reward function for verl.

    ground_truth: the label, as an integer or a string of digits. An invalid one gives `NEUTRAL`: verl needs a number.
    extra_info: must hold `num_responses`, the number of responses shown, unless the format always shows as many;
        without it, every completion gets `NEUTRAL` and a warning.
    format: as of `grm_rule_reward`, from verl's `reward_kwargs`.
    """
    shown = extra_info.get("num_responses") if isinstance(extra_info, Mapping) else None
    reward = reward_or_none(solution_str, ground_truth, shown, _reader(_name(format)).read)
    return NEUTRAL if reward is None else reward


def _name(format: str | None) -> str:
    return format or os.environ.get("GRM_FORMAT") or BUILT_IN


class _Reader:
    """Reads completions in one format."""

    def __init__(self, form: JudgeFormat) -> None:
        shows = form.file.shows
        self.fixed = shows.max if shows.max == shows.min else None
        """The number of responses that every prompt shows."""
        self._form = form

    def read(self, text: str, n: int | None) -> Sequence[float] | None:
        n = self.fixed if n is None else n
        if n is None:
            raise ValueError("the number of responses shown is unknown")
        shows = self._form.file.shows
        if n < shows.min or (shows.max is not None and n > shows.max):
            raise ValueError(f"format {self._form.name} does not show {n} responses")
        points = read_completion(self._form, text, n)
        return None if isinstance(points, FailureReason) else points


@lru_cache(maxsize=64)
def _reader(name: str) -> _Reader:
    return _Reader(load(name))
