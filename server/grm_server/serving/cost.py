"""What a request asks of the engine, told before anything is tokenised. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from grm_server.grm.plan import wave_end, wave_unit
from grm_server.grm.types import Fixed, Precision, Strict
from grm_server.pipeline.types import ScoreRequest


@dataclass(frozen=True, slots=True)
class Cost:
    samples: int
    """At most: k times the blocks that the responses make."""
    first: int
    """Those of its first wave, which begin together."""
    prompts: int
    """Distinct ones; the prompt of equal orders is computed once."""
    letters: int
    """Of all distinct prompts."""


def cost_of(request: ScoreRequest, template_letters: int) -> Cost:
    """template_letters: those of a prompt that are in all of them.

    A list that turns out not to fit the model's context makes more samples than this, of shorter prompts.
    """
    task, n = request.task, len(request.task.responses)
    blocks = -(-n // min(n, request.list_size))
    samples = request.k * blocks
    told = sum(len(message.content) for message in task.query)
    told += template_letters + len(task.reference or "") + len(task.principles or "")
    # As many orders as `plan.latin_squares` has; blocks are dealt anew in every round.
    rounds = request.k if blocks > 1 else min(request.k, 1 if n == 1 else n + n % 2 * n)
    unit = 1 if blocks > 1 or isinstance(request.stop, Strict) else wave_unit(n)
    at_once = isinstance(request.stop, Fixed) or (n == 1 and not isinstance(request.stop, Precision))
    return Cost(
        samples=samples,
        first=samples if at_once else wave_end(0, request.k, unit) * blocks,
        prompts=rounds * blocks,
        letters=rounds * (blocks * told + sum(map(len, task.responses))),
    )
