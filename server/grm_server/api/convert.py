"""Between the wire and the pipeline. Two functions, no decisions but defaults and limits."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from grm_server.api import schemas
from grm_server.errors import LimitExceeded
from grm_server.grm.types import Failure, Message, Task, Trajectory
from grm_server.pipeline import Judgement, ScoreRequest


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """What a request gets when it does not say, and the most it may ask for."""

    k: int
    temperature: float
    max_critique_tokens: int
    limit_responses: int
    limit_k: int
    limit_critique_tokens: int


def to_score_request(body: schemas.RewardsRequest, policy: RequestPolicy) -> ScoreRequest:
    """Raises LimitExceeded, which names the field and the limit."""
    request = ScoreRequest(
        task=Task(
            query=(Message("user", body.query),)
            if isinstance(body.query, str)
            else tuple(Message(turn.role, turn.content) for turn in body.query),
            responses=tuple(body.responses),
            reference=body.reference,
            principles=body.principles,
        ),
        k=policy.k if body.k is None else body.k,
        seed=secrets.randbelow(2**53) if body.seed is None else body.seed,
        temperature=policy.temperature if body.temperature is None else body.temperature,
        max_critique_tokens=policy.max_critique_tokens
        if body.max_critique_tokens is None
        else body.max_critique_tokens,
        min_votes=body.min_votes,
    )
    _limit("responses", len(request.task.responses), policy.limit_responses, "limits.max_responses")
    _limit("k", request.k, policy.limit_k, "limits.max_k")
    _limit(
        "max_critique_tokens", request.max_critique_tokens, policy.limit_critique_tokens, "limits.max_critique_tokens"
    )
    _limit("min_votes", request.min_votes, request.k, "k")
    return request


def _limit(param: str, value: int, limit: int, name: str) -> None:
    if value > limit:
        raise LimitExceeded(
            f"{param} is {value}, over the limit {name} = {limit}", param=param, details={"limit": limit}
        )


def to_response(
    judgement: Judgement, request: ScoreRequest, *, request_id: str, model: str, return_samples: bool
) -> schemas.RewardsResponse:
    verdict = judgement.verdict
    samples = [outcome.sample for outcome in judgement.outcomes if outcome.sample is not None]
    return schemas.RewardsResponse(
        id=request_id,
        model=model,
        rewards=list(verdict.rewards),
        ranking=list(verdict.ranking),
        best=verdict.best,
        ties=[list(group) for group in verdict.ties],
        vote_sums=list(verdict.vote_sums),
        k=request.k,
        k_valid=verdict.k_valid,
        failures={reason.value: count for reason, count in verdict.failures.items()},
        seed=request.seed,
        samples=[_sample(outcome) for outcome in judgement.outcomes] if return_samples else None,
        usage=schemas.Usage(
            prompt_tokens=sum(sample.prompt_tokens for sample in samples),
            cached_tokens=sum(sample.cached_tokens for sample in samples),
            completion_tokens=sum(sample.completion_tokens for sample in samples),
        ),
        timing=schemas.Timing(queue_s=judgement.queue_s, generate_s=judgement.generate_s, total_s=judgement.total_s),
    )


def _sample(outcome: Trajectory | Failure) -> schemas.SampleOut:
    sample = outcome.sample
    return schemas.SampleOut(
        index=outcome.draw.index,
        order=list(outcome.draw.order),
        principles=None if sample is None else sample.principles,
        critique=None if sample is None else sample.critique,
        scores=list(outcome.scores) if isinstance(outcome, Trajectory) else None,
        finish_reason=None if sample is None else "length" if sample.cut else "stop",
        completion_tokens=0 if sample is None else sample.completion_tokens,
        failure=outcome.reason.value if isinstance(outcome, Failure) else None,
    )
