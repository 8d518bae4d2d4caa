"""What a request asks of the engine, told before anything is tokenised. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from grm_server.grm.plan import plan_wave_unit, wave_end
from grm_server.pipeline.types import ScoreRequest


@dataclass(frozen=True, slots=True)
class Cost:
    samples: int
    """At most: k times the blocks that the responses make."""
    first: int
    """Those of its first wave, which begin together."""
    prompts: int
    """Distinct ones; the prompt of equal orders is computed once."""
    chars: int
    """Of all distinct prompts."""


def cost_of(request: ScoreRequest, template_chars: int) -> Cost:
    """template_letters: those of a prompt that are in all of them.

    A list that turns out not to fit the model's context makes more samples than this, of shorter prompts.
    """
    task, n = request.task, len(request.task.responses)
    blocks = request.samples // request.k
    told = template_chars + task.shared_chars
    # As many orders as `plan.latin_squares` has; blocks are dealt anew in every round.
    rounds = request.k if blocks > 1 else min(request.k, 1 if n == 1 else n + n % 2 * n)
    unit = plan_wave_unit(n, request.list_size, exchangeable=request.stop.exchangeable_orders)
    return Cost(
        samples=request.samples,
        first=wave_end(0, request.k, unit) * blocks if request.in_waves else request.samples,
        prompts=rounds * blocks,
        chars=rounds * (blocks * told + sum(map(len, task.responses))),
    )
