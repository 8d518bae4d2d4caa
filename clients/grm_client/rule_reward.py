r"""The rule reward: +1 if a judge's scores pick the label, else -1. Labels trajectories, and trains judges.

Liu et al. 2025, arXiv 2504.02495: eq. 10 defines when a trajectory is right, eq. 11 makes that +1 or -1. There is no
reward for the format: an output without readable scores is wrong.

    TRL     GRPOTrainer(..., reward_funcs=grm_rule_reward)     dataset columns `label` and `num_responses`
    verl    reward.custom_reward_function.path=pkg://grm_client.rule_reward     (function `compute_score`)

Standard library only: a trainer's worker processes import this module.
"""

from __future__ import annotations

import logging
import operator
import re
from collections.abc import Mapping, Sequence
from typing import Any, SupportsIndex

from grm_client.turns import as_response

logger = logging.getLogger(__name__)

RIGHT, WRONG = 1.0, -1.0
NEUTRAL = 0.0
"""Between them, for an item that cannot be read, where a trainer needs a number."""

GOOD_FROM = 6
"""Lowest score that rates a single response as good: the middle of 1..10 is 5.5."""

_BOX = re.compile(r"\s*\{([^{}]*)\}")
_INTEGER = re.compile(r"[+-]?[0-9]{1,9}")


def is_right(scores: Sequence[float | None], label: int) -> bool | None:
    """Whether the scores of one sample pick the label (eq. 10).

    scores: (n,), 1..10; None for a response that the sample did not show.
    label: index of the best response in the order of the scores; for one response 1 (good) or 0 (bad).

    n >= 2: the best response's score must be strictly the highest, so a tie is wrong. n = 1: eq. 10 requires the score
    to equal the label, but the label has two values and the score has ten. We map the score to the label's scale:
    `GOOD_FROM` and above is 1, below is 0.

    Returns None if any response has no score, because its rank is then unknown.
    """
    given = [score for score in scores if score is not None]
    if len(given) < len(scores):
        return None
    if len(given) == 1:
        return (given[0] >= GOOD_FROM) == (label == 1)
    return all(given[label] > score for i, score in enumerate(given) if i != label)


def is_tied(scores: Sequence[float | None]) -> bool:
    """Whether two or more responses share the highest score."""
    given = [score for score in scores if score is not None]
    return given.count(max(given, default=0)) > 1


def label_count(n: int) -> int:
    """Number of possible labels for n responses: n, or 2 (good, bad) for a single response."""
    return max(n, 2)


def boxed_scores(text: str) -> tuple[int, ...] | None:
    r"""The scores in the last \boxed{...} of a judge's text, in the order shown; None unless all are integers in 1..10.

    The last box counts, because a judge may quote one before it writes its own. We validate the scores after we found
    the box: a pattern that matches only valid scores would skip an invalid box and find an earlier one. Scores are not
    clamped: a judge that leaves the scale did not judge on it.
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
) -> list[float | None]:
    """+1.0 for each completion whose scores pick the label, else -1.0 (eq. 11). A reward function for TRL's GRPO.

    completions: the judge's outputs, as text or as chat messages; of messages, the last one counts.
    label: dataset column, index of the best response in the order shown; for one response 1 or 0.
    num_responses: dataset column, number of responses shown. Without it the judge chooses the number of scores: a judge
        that learns to write one score for two responses is right half of the time.

    A completion with an invalid label, or that is no text, gets None, which TRL leaves out, and a warning: that is an
    error in the data, and the judge must not be punished for it. Raises ValueError for columns of different lengths.
    """
    counts: Sequence[SupportsIndex | None] = [None] * len(completions) if num_responses is None else num_responses
    rows = zip(completions, label, counts, strict=True)
    return [_reward_or_none(*row) for row in rows]


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: SupportsIndex | str,
    extra_info: Mapping[str, Any] | None = None,
    **_: object,
) -> float:
    """`grm_rule_reward` of one completion. A custom reward function for verl.

    ground_truth: the label, as an integer or a string of digits. An invalid one gives `NEUTRAL`: verl needs a number.
    extra_info: may hold `num_responses`, the number of responses shown.
    """
    shown = extra_info.get("num_responses") if isinstance(extra_info, Mapping) else None
    reward = _reward_or_none(solution_str, ground_truth, shown)
    return NEUTRAL if reward is None else reward


def _reward_or_none(completion: Any, label: Any, n: Any) -> float | None:
    """None for an item that cannot be read: it costs its own reward, not those of the batch."""
    try:
        return _reward(_text(completion), _index(label), _index(n))
    except Exception as error:
        # Columns hold any objects. The values are left out, since they may be the policy's text.
        logger.warning(
            "a completion gets no rule reward, because its label, its number of responses or its text cannot be read "
            "(%s; the label is of type %s): check the data set",
            type(error).__name__,
            type(label).__name__,
        )
        return None


def _reward(text: str, label: int | None, n: int | None) -> float:
    """n: number of responses shown; None if unknown."""
    if label is None or label < 0 or (n is not None and label >= label_count(n)):
        raise ValueError(f"label {label} is not an index of {'a response' if n is None else f'{n} responses'}")
    scores = boxed_scores(text)
    if scores is None or (n is not None and len(scores) != n) or label >= label_count(len(scores)):
        return WRONG
    return RIGHT if is_right(scores, label) else WRONG


def _index(value: SupportsIndex | str | None) -> int | None:
    """Accept any integer type, such as numpy's, and strings of digits, which are common in verl's tables."""
    if value is None:
        return None
    # bool is a subclass of int.
    if isinstance(value, bool) or not isinstance(value, str | SupportsIndex):
        raise ValueError(f"{value!r} is not an integer")
    return int(value) if isinstance(value, str) else operator.index(value)


def _text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(completion, str):
        return completion
    return as_response(completion[-1:])
