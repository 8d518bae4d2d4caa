"""What every meta RM does with tokens and logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scipy.special import expit

from grm_server.errors import MetaRMFailed, PromptTooLong


def fitting(ids: list[int], max_tokens: int | None) -> tuple[int, ...]:
    """The tokens, if the meta RM can read them all. Raises PromptTooLong."""
    if max_tokens is not None and len(ids) > max_tokens:
        raise PromptTooLong(
            f"the meta RM would read {len(ids)} tokens, over its {max_tokens}: shorten the texts, send fewer responses "
            "or lower max_critique_tokens",
            details={"needed_tokens": len(ids), "limit": max_tokens},
        )
    return tuple(ids)


def as_probability(logits: Sequence[float], platt: tuple[float, float]) -> float:
    """sigmoid(a * x + b), x the logit of "right": the only one, or the second of two less the first.

    Raises MetaRMFailed for another number of classes, or for NaN.
    """
    if len(logits) not in (1, 2) or not all(map(math.isfinite, logits)):
        raise MetaRMFailed(f"a meta RM has one logit or two, this one gave {len(logits)}, or no number")
    return float(expit(platt[0] * (logits[-1] - (logits[0] if len(logits) == 2 else 0.0)) + platt[1]))
