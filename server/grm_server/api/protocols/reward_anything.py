"""RewardAnything's API: a principle, a prompt, and named responses."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from grm_server.api.openapi import ERRORS, judgement_link
from grm_server.api.protocols.batch import check_items, judge_all
from grm_server.api.protocols.options import Options, OptionsDep, rewards_body
from grm_server.api.protocols.scale import scaled
from grm_server.api.schemas import FirstError, RewardsRequest, Text
from grm_server.api.service import Service, ServiceDep
from grm_server.grm.types import Message, Trajectory
from grm_server.judging.store import Judged

router = APIRouter()


class NamedResponses(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    principle: Text = ""
    """Criteria to judge by."""
    prompt: Text
    responses: dict[Text, Text] = Field(min_length=1)
    mask_responses: bool = Field(True, strict=True)
    """Ignored: the judge never sees names, and orders are balanced."""


class Results(BaseModel):
    scores: dict[str, float]
    best_to_worst: list[str] = Field(serialization_alias="best-to-worst")


class NamedRewards(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    thoughts: str
    """One of the critiques, with the names of the responses that it refers to by number. GET /v1/judgements/{id}
    returns all."""
    results: Results
    judgement: str
    """Id of the judgement."""


@router.post("/api/rewardanything", responses=ERRORS | judgement_link("/judgement"), summary="RewardAnything")
async def reward_anything(
    request: Request, body: NamedResponses, options: OptionsDep, service: ServiceDep
) -> NamedRewards:
    """Named responses to one prompt, judged together."""
    [judged] = await judge_all(request, service, [_rewards_body(body, options, service)])
    return _answer(body, judged, options, service)


@router.post("/api/rewardanything_batch", responses=ERRORS, summary="RewardAnything, many")
async def reward_anything_batch(
    request: Request, body: Annotated[list[NamedResponses], FirstError], options: OptionsDep, service: ServiceDep
) -> list[NamedRewards]:
    """The same for several prompts, in request order."""
    check_items("body", len(body), service.policy.limits)
    judged = await judge_all(request, service, (_rewards_body(call, options, service) for call in body))
    return [_answer(call, one, options, service) for call, one in zip(body, judged, strict=True)]


def _rewards_body(call: NamedResponses, options: Options, service: Service) -> RewardsRequest:
    return rewards_body(
        (Message("user", call.prompt),),
        list(call.responses.values()),
        options,
        service,
        principles=call.principle or None,
    )


def _answer(call: NamedResponses, judged: Judged, options: Options, service: Service) -> NamedRewards:
    names = list(call.responses)
    scale = options.scale(service.trainers.reward_anything.reward_scale)
    verdict = judged.judgement.verdict
    return NamedRewards(
        thoughts=_thoughts(judged, names),
        results=Results(
            scores=dict(zip(names, scaled(verdict.rewards, scale), strict=True)),
            best_to_worst=[names[i] for i in verdict.ranking],
        ),
        judgement=judged.id,
    )


def _thoughts(judged: Judged, names: list[str]) -> str:
    first = next((one for one in judged.judgement.outcomes if isinstance(one, Trajectory)), None)
    if first is None:
        return ""
    shown = "; ".join(f"Response {p + 1} is {names[i]}" for p, i in enumerate(first.draw.order))
    return f"{shown}.\n{first.sample.critique}"
