"""Token limits and probabilities, shared by all meta RMs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import expit

from grm_server.errors import MetaRMFailed, PromptTooLong


def check_length(ids: list[int], max_tokens: int | None) -> tuple[int, ...]:
    """The tokens as a tuple. Raises PromptTooLong if they exceed the meta RM's context."""
    if max_tokens is not None and len(ids) > max_tokens:
        raise PromptTooLong(
            f"the meta RM's input has {len(ids)} tokens, more than its context of {max_tokens}: shorten the texts, "
            "send fewer responses or lower max_critique_tokens",
            details={"needed_tokens": len(ids), "limit": max_tokens},
        )
    return tuple(ids)


def as_probability(logits: Sequence[float], platt: tuple[float, float]) -> float:
    """sigmoid(a * x + b), where x is the logit of "right": the only one, or second minus first of two.

    Raises MetaRMFailed for another number of classes, or for NaN.
    """
    if len(logits) not in (1, 2) or not all(map(math.isfinite, logits)):
        raise MetaRMFailed(f"the meta RM must return one or two finite logits; it returned {list(logits[:3])}")
    return float(expit(platt[0] * (logits[-1] - (logits[0] if len(logits) == 2 else 0.0)) + platt[1]))
