"""The flow on one screen."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from grm_server.grm.prompts import JudgeTemplate
from grm_server.grm.types import Prior, StopReason
from grm_server.pipeline.decider import Run
from grm_server.pipeline.metrics import count_answer
from grm_server.pipeline.permit import Permit
from grm_server.pipeline.rating import Guidance
from grm_server.pipeline.types import Event, Judgement, ScoreRequest, Started, WaveEnd
from grm_server.telemetry.metrics import Metrics


async def score(
    request: ScoreRequest,
    template: JudgeTemplate,
    permit: Permit,
    metrics: Metrics,
    prior: Prior,
    guidance: Guidance | None = None,
    *,
    anytime: bool = False,
    audit: bool = False,
) -> AsyncGenerator[Event]:
    """Judge one request: yields Started, samples as they finish, WaveEnds, and a Judgement in the end.

    anytime: say the verdict at each WaveEnd.
    audit: if the answer is `auditable`, draw all k samples of whole lists then and yield that Judgement too.

    guidance: needed where the request's aggregate is one of the meta RM's.

    Raises PromptTooLong (before anything is generated), EngineDead, MetaRMFailed, TooFewVotes when a response has fewer
    than `min_votes` scores, and DeadlineExceeded when that is so at the deadline, or when it comes before anything is
    generated. Closing it aborts its samples.
    """
    run = Run(request, template, permit, metrics, prior, guidance)
    try:
        await run.plan()
        async with run.flight() as flight:
            yield Started(run.list_size)
            while run.decision.stop is None:
                async for outcome in run.draw_wave(flight):
                    yield outcome
                run.decide()
                known = anytime and run.evidence.shown.all()
                yield WaveEnd(run.verdict() if known else None, run.decision, run.k_used)
            judgement = run.judgement()
            count_answer(metrics, request, judgement)
            yield judgement
            if audit and auditable(judgement):
                await run.draw_rest(flight)
                yield run.judgement()
    finally:
        metrics.aborted(run.unfinished)


def auditable(judgement: Judgement) -> bool:
    """Whether `decided` spared something: samples, or readings of responses that were dropped."""
    return judgement.stop_reason is StopReason.DECIDED or judgement.dropped
