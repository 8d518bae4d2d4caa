"""From the wire to the pipeline. No decisions but defaults, limits and which choices go together."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Literal, TypeVar

from grm_server.api import schemas
from grm_server.errors import InvalidRequest, LimitExceeded
from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.types import (
    Aggregate,
    Fixed,
    Message,
    RuleName,
    StopRule,
    Strict,
    Task,
    needs_meta_rm,
    rule_named,
)
from grm_server.pipeline.types import ScoreRequest


@dataclass(frozen=True, slots=True)
class RequestPolicy:
    """What a request gets when it does not say, and the most it may ask for."""

    k: int
    temperature: float
    max_critique_tokens: int
    stop: RuleName
    gamma: float
    delta: float
    se: float
    aggregate: Aggregate
    meta_rm: bool
    """Whether there is one."""
    fallback_to_plain_vote: bool
    principles_from: Literal["sample", "query"]
    list_size: int
    speculate_below: int
    limit_responses: int
    limit_k: int
    limit_critique_tokens: int
    limit_samples: int
    limit_deadline_s: float
    limit_k_name: str = "limits.max_k"


def to_score_request(body: schemas.RewardsRequest, policy: RequestPolicy, tenant: str) -> ScoreRequest:
    """tenant: who asks.

    Raises LimitExceeded, which names field and limit, and InvalidRequest for choices that do not go together."""
    n = len(body.responses)
    # What the caller did not choose follows from what fits: an operator's default must not refuse a request.
    aggregate = _or(body.aggregate, _default_aggregate(body, policy))
    stop = Fixed() if body.stop is None and AGGREGATES[aggregate].needs_all_k else _stop_rule(body, policy)
    whole_lists, k = stop.exchangeable_orders, _or(body.k, policy.k)
    request = ScoreRequest(
        task=Task(
            query=(Message("user", body.query),)
            if isinstance(body.query, str)
            else tuple(Message(turn.role, turn.content) for turn in body.query),
            responses=tuple(body.responses),
            reference=body.reference,
            principles=body.principles,
            hint=body.hint,
        ),
        k=k,
        seed=secrets.randbelow(2**53) if body.seed is None else body.seed,
        temperature=_or(body.temperature, policy.temperature),
        max_critique_tokens=_or(body.max_critique_tokens, policy.max_critique_tokens),
        deadline_s=_or(body.deadline_s, policy.limit_deadline_s),
        min_votes=body.min_votes,
        stop=stop,
        aggregate=aggregate,
        k_meta=_or(body.k_meta, max(1, k // 2)),
        fallback_to_plain_vote=policy.fallback_to_plain_vote
        if body.meta_rm_failure is None
        else body.meta_rm_failure == "vote",
        reading=_or(body.reading, "expected" if n == 1 and not whole_lists else "sampled"),
        list_size=_or(body.list_size, max(policy.list_size, n) if whole_lists else policy.list_size),
        speculate_below=policy.speculate_below,
        principles_from=_or(body.principles_from, policy.principles_from),
        tenant=tenant,
        seed_is_free=body.seed is None,
        priority=body.priority,
    )
    _limit("responses", n, policy.limit_responses, "limits.max_responses")
    _limit("k", request.k, policy.limit_k, policy.limit_k_name)
    _limit(
        "max_critique_tokens", request.max_critique_tokens, policy.limit_critique_tokens, "limits.max_critique_tokens"
    )
    check_seconds("deadline_s", request.deadline_s, policy)
    samples = request.samples
    if samples > policy.limit_samples:
        raise LimitExceeded(
            f"k = {request.k} readings of {n} responses in lists of {request.list_size} are {samples} samples, over "
            f"the limit limits.max_samples = {policy.limit_samples}",
            param="k",
            details={"samples": samples, "limit": policy.limit_samples},
        )
    _limit("min_votes", request.min_votes, request.k, "k")
    _check_together(request)
    _check_meta(body, request, policy)
    return request


T = TypeVar("T")


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _default_aggregate(body: schemas.RewardsRequest, policy: RequestPolicy) -> Aggregate:
    facts = AGGREGATES[policy.aggregate]
    if facts.needs_comparison and len(body.responses) == 1:
        return "mean"
    if facts.needs_all_k and body.stop is not None and body.stop.rule != "fixed":
        return "meta_hinge"
    return policy.aggregate


def _stop_rule(body: schemas.RewardsRequest, policy: RequestPolicy) -> StopRule:
    defaults = {"gamma": policy.gamma, "delta": policy.delta, "se": policy.se}
    if body.stop is None:
        return rule_named(policy.stop, defaults)
    return rule_named(body.stop.rule, defaults | body.stop.model_dump(exclude_none=True))


def check_seconds(param: str, seconds: float, policy: RequestPolicy) -> None:
    """Raises LimitExceeded for a wait beyond the longest deadline."""
    if seconds > policy.limit_deadline_s:
        raise LimitExceeded(
            f"{param} is {seconds:g}, over the limit limits.max_deadline_s = {policy.limit_deadline_s:g}", param=param
        )


def _limit(param: str, value: int, limit: int, name: str) -> None:
    if value > limit:
        raise LimitExceeded(
            f"{param} is {value}, over the limit {name} = {limit}", param=param, details={"limit": limit}
        )


def _check_together(request: ScoreRequest) -> None:
    n = len(request.task.responses)
    if request.task.hint is not None and request.task.hint >= max(n, 2):
        raise InvalidRequest(f"hint is {request.task.hint}, and there are {n} responses, counted from 0", param="hint")
    if n == 1 and AGGREGATES[request.aggregate].needs_comparison:
        raise InvalidRequest(
            f"aggregate `{request.aggregate}` compares responses; with one, use `mean`", param="aggregate"
        )
    if isinstance(request.stop, Strict):
        if not AGGREGATES[request.aggregate].sums_over_samples or request.reading == "expected":
            raise InvalidRequest(
                "stop rule `strict` is proven for sums of sampled scores: use aggregate mean, vote or borda and "
                "reading sampled",
                param="stop",
            )
        if n > request.list_size:
            raise InvalidRequest(
                f"stop rule `strict` needs every sample to show every response: raise list_size to {n}", param="stop"
            )


def _check_meta(body: schemas.RewardsRequest, request: ScoreRequest, policy: RequestPolicy) -> None:
    if needs_meta_rm(request.aggregate) and not policy.meta_rm:
        raise InvalidRequest(
            f"aggregate `{request.aggregate}` needs a meta RM, and this server has none: `grm serve --meta-rm`",
            param="aggregate",
        )
    if AGGREGATES[request.aggregate].needs_all_k:
        if request.stop.looks_early:
            raise InvalidRequest(
                "aggregate `meta_top` needs stop rule `fixed`: a new sample can push an old one out, so nothing is "
                "decided before the last; `meta_hinge` stops early",
                param="stop",
            )
        _limit("k_meta", request.k_meta, request.k, "k")
        _limit("min_votes", request.min_votes, request.k_meta, "k_meta")
    elif body.k_meta is not None:
        raise InvalidRequest("k_meta is for aggregate `meta_top`", param="k_meta")
