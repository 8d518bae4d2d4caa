"""The whole flow of a request, from its texts to its rewards."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from contextlib import aclosing
from dataclasses import dataclass

from grm_server.engine.base import Outcome, Sampler
from grm_server.errors import TooFewVotes
from grm_server.grm.parse import parse
from grm_server.grm.plan import plan
from grm_server.grm.prompts import JudgeTemplate, write_scripts
from grm_server.grm.types import Draw, Failure, FailureReason, Order, Sample, Task, Trajectory, Verdict
from grm_server.grm.voting import vote
from grm_server.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One task and how to judge it, every choice made."""

    task: Task
    k: int
    seed: int
    temperature: float
    max_critique_tokens: int
    min_votes: int = 1


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer, with all that led to it."""

    verdict: Verdict
    outcomes: tuple[Trajectory | Failure, ...]
    """(k,), launch order."""
    queue_s: float
    """From arrival until the engine began the first sample."""
    generate_s: float
    """From then until the last sample was finished."""
    total_s: float


async def score(request: ScoreRequest, template: JudgeTemplate, sampler: Sampler, metrics: Metrics) -> Judgement:
    """Judge one request.

    Raises PromptTooLong (before anything is generated), EngineDead, and TooFewVotes when fewer than `min_votes`
    samples gave scores. Cancelling it aborts its samples in the engine.
    """
    arrived_s = time.monotonic()
    n = len(request.task.responses)
    draws = plan(n, request.k, request.seed)
    by_order: dict[Order, list[Draw]] = defaultdict(list)
    for draw in draws:
        by_order[draw.order].append(draw)
    # All prompts are checked before the first is generated: a request that cannot be finished costs nothing.
    scripts = write_scripts(template, request.task, by_order, request.max_critique_tokens)
    prepared = {order: sampler.prepare(script) for order, script in scripts.items()}
    outcomes: dict[int, Trajectory | Failure] = {}

    async def judge(order: Order) -> None:
        """The samples of one order: one engine call, each sample parsed as it ends."""
        seeds = [draw.seed for draw in by_order[order]]
        async with aclosing(sampler.sample(prepared[order], seeds, request.temperature)) as finished:
            async for place, sample in finished:
                draw = by_order[order][place]
                outcomes[draw.index] = outcome = _read(draw, sample)
                _count(outcome, metrics)

    try:
        async with asyncio.TaskGroup() as tasks:
            for order in by_order:
                tasks.create_task(judge(order))
    except ExceptionGroup as group:
        # The first that failed says it for all: the others died of the same engine or were cancelled for it.
        first: BaseException = group
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from group
    in_order = tuple(outcomes[draw.index] for draw in draws)
    trajectories = [outcome for outcome in in_order if isinstance(outcome, Trajectory)]
    failures = [outcome for outcome in in_order if isinstance(outcome, Failure)]
    if len(trajectories) < request.min_votes:
        raise TooFewVotes(
            f"{len(trajectories)} of {request.k} samples gave scores, {request.min_votes} were asked for",
            details=Counter(failure.reason.value for failure in failures),
        )
    samples = [outcome.sample for outcome in in_order if outcome.sample is not None]
    started_s = min(sample.started_s for sample in samples)
    judgement = Judgement(
        verdict=vote(trajectories, failures),
        outcomes=in_order,
        # The engine's clock is read in another process; a hair before arrival means at once.
        queue_s=max(0.0, started_s - arrived_s),
        generate_s=max(sample.finished_s for sample in samples) - started_s,
        total_s=time.monotonic() - arrived_s,
    )
    metrics.answered(n, queue_s=judgement.queue_s, generate_s=judgement.generate_s, total_s=judgement.total_s)
    return judgement


def _read(draw: Draw, sample: Outcome) -> Trajectory | Failure:
    return parse(draw, sample) if isinstance(sample, Sample) else Failure(draw, FailureReason.ENGINE_ERROR)


def _count(outcome: Trajectory | Failure, metrics: Metrics) -> None:
    """Every sample is counted when it ends, also those of a request that fails."""
    sample = outcome.sample or Sample({})
    metrics.sample(
        "valid" if isinstance(outcome, Trajectory) else outcome.reason.value,
        cut=bool(sample.cut),
        prompt=sample.prompt_tokens,
        cached=sample.cached_tokens,
        completion=sample.completion_tokens,
    )
