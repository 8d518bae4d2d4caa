"""Principles from the query alone, before any response to it is seen."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

from grm_server.engine.protocol import SchedulingClass
from grm_server.grm.parse import whole_principles
from grm_server.grm.prompts import PrinciplesTemplate, write_principles_script
from grm_server.grm.types import Sample
from grm_server.pipeline.permit import Permit
from grm_server.pipeline.types import ScoreRequest
from grm_server.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Drawn:
    """What came of it."""

    text: str | None
    """None: the judge wrote nothing that can be used."""
    completion_tokens: int = 0


async def draw_principles(
    request: ScoreRequest, seed: int, template: PrinciplesTemplate, permit: Permit, metrics: Metrics
) -> Drawn:
    """Draw one sample of nothing but principles; of the request's task it sees the query and the reference.

    A sample that the engine fails gives none. Raises PromptTooLong, which judging would raise too, and EngineDead.
    Cancelling it aborts the sample.
    """
    prepared = permit.prepare(write_principles_script(template, request.task, request.max_critique_tokens))
    async with aclosing(permit.sample(prepared, (seed,), request.temperature, SchedulingClass.NEW)) as finished:
        _, outcome = await anext(finished)
    if not isinstance(outcome, Sample):
        return Drawn(None)
    metrics.spent(prompt=outcome.prompt_tokens, cached=outcome.cached_tokens, completion=outcome.completion_tokens)
    return Drawn(whole_principles(outcome), outcome.completion_tokens)
