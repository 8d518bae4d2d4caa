r"""Whether a judge's scores pick the label: the rule that labels trajectories and rewards a judge in training.

Liu et al. 2025, arXiv 2504.02495: eq. 10 calls a trajectory right or wrong, eq. 11 makes that +1 or -1. There is no
reward for the format: what cannot be read is wrong.

    TRL     GRPOTrainer(..., reward_funcs=grm_rule_reward)     dataset columns `label` and `num_responses`
    verl    reward.custom_reward_function.path=pkg://grm_client.rule_reward     (function `compute_score`)

The standard library only, so that a trainer's worker processes import it at no cost.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

RIGHT, WRONG = 1.0, -1.0

GOOD_FROM = 6
"""The lowest score that calls a single response good: the middle of 1..10 is 5.5."""

_BOX = re.compile(r"\s*\{([^{}]*)\}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


def is_right(scores: Sequence[int | None], label: int) -> bool | None:
    """Whether the scores of one sample pick the label (eq. 10).

    scores: (n,), 1..10; None for a response that the sample was not shown.
    label: index of the best response in the order of the scores; for one response 1 (good) or 0 (bad).

    Two or more responses: the best one's score must be above every other, so a tie is wrong. One response: eq. 10 asks
    that score and label be equal, and the label has two points where the score has ten. They are compared on the
    label's scale: `GOOD_FROM` and more is 1, less is 0.

    None where a response has no score, since nobody knows how it compares.
    """
    given = [score for score in scores if score is not None]
    if len(given) < len(scores):
        return None
    if len(given) == 1:
        return (given[0] >= GOOD_FROM) == (label == 1)
    return all(given[label] > score for i, score in enumerate(given) if i != label)


def is_tied(scores: Sequence[int | None]) -> bool:
    """Whether two or more responses share the highest score."""
    given = [score for score in scores if score is not None]
    return given.count(max(given, default=0)) > 1


def labels_of(n: int) -> int:
    """How many labels there are for n responses: one for each, and for a single one 0 and 1."""
    return max(n, 2)


def boxed_scores(text: str) -> tuple[int, ...] | None:
    r"""The scores in the last \boxed{...} of a judge's text, in the order shown; None unless all are integers in 1..10.

    The last one, because a judge may quote a box before it writes its own; and what stands in it is checked after it
    was found: a pattern that only admits valid scores would skip a bad verdict and find a better one before it. Nothing
    is clamped: a judge that leaves its scale was not judging on it.
    """
    _, found, tail = text.rpartition("\\boxed")
    match = _BOX.match(tail) if found else None
    words = [word.strip() for word in match[1].split(",")] if match else []
    if not words or not all(_INTEGER.fullmatch(word) for word in words):
        return None
    scores = tuple(map(int, words))
    return scores if all(1 <= score <= 10 for score in scores) else None


def grm_rule_reward(
    completions: Sequence[str | Sequence[Mapping[str, Any]]],
    label: Sequence[SupportsIndex],
    num_responses: Sequence[SupportsIndex] | None = None,
    **_: object,
) -> list[float]:
    """+1.0 for each completion whose scores pick the label, else -1.0 (eq. 11): a reward function of TRL's GRPO.

    completions: what the judge wrote, as text or as chat messages, of which the last one counts.
    label: the dataset's column: index of the best response in the order shown; for one response 1 or 0.
    num_responses: the dataset's column: responses shown. Without it the number of scores is the judge's choice, and a
        judge that learns to write one score for two responses is right half of the time.

    Raises ValueError for a label that is none: a mistake in the data, for which no judge should be punished.
    """
    counts: Sequence[SupportsIndex | None] = [None] * len(completions) if num_responses is None else num_responses
    rows = zip(completions, label, counts, strict=True)
    return [_reward(_text(completion), _index(best), _index(n)) for completion, best, n in rows]


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: SupportsIndex | str,
    extra_info: Mapping[str, Any] | None = None,
    **_: object,
) -> float:
    """`grm_rule_reward` of one completion: a custom reward function of verl.

    ground_truth: the label, as an integer or its digits.
    extra_info: its `num_responses`, if there is one, is how many responses were shown.
    """
    return _reward(solution_str, _index(ground_truth), _index((extra_info or {}).get("num_responses")))


def _reward(text: str, label: int | None, n: int | None) -> float:
    """n: responses shown; None leaves it to the box."""
    if label is None or label < 0 or (n is not None and label >= labels_of(n)):
        raise ValueError(f"label {label} is no index of {'a response' if n is None else f'{n} responses'}")
    scores = boxed_scores(text)
    if scores is None or (n is not None and len(scores) != n) or label >= labels_of(len(scores)):
        return WRONG
    return RIGHT if is_right(scores, label) else WRONG


def _index(value: SupportsIndex | str | None) -> int | None:
    """Integers of any kind, numpy's included, and digits, as verl's tables often have them."""
    if value is None:
        return None
    # To Python True is 1.
    if isinstance(value, bool) or not isinstance(value, str | SupportsIndex):
        raise ValueError(f"{value!r} is no integer")
    return int(value) if isinstance(value, str) else operator.index(value)


def _text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"] if completion else None
    # A turn that only calls a tool has none.
    return content if isinstance(content, str) else ""
