"""NeMo-Gym's `genrm_compare`: a resources server whose agents call `/verify` once for each rollout of a prompt.

A group has an id, an attempt and slots. A retry of a slot gets the same reward; with another response it gets 409. A
later attempt supersedes an earlier one, which gets 503. Unlike the original, a group that stays incomplete is judged as
it is. A rollout that cannot be read or judged becomes a masked sample with status 200, as in Gym's own failsafe.
"""

from __future__ import annotations

import json
from itertools import combinations
from statistics import fmean
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from grm_server.api.openapi import BODY_ERRORS, ERRORS, SLOT_ERRORS, judgement_link
from grm_server.api.protocols.batch import judge_all
from grm_server.api.protocols.items import encodable, or_error, read_alone, readable
from grm_server.api.protocols.messages import final_answer, input_messages
from grm_server.api.protocols.options import OptionsDep, rewards_body
from grm_server.api.protocols.pairwise import compare_pair
from grm_server.api.protocols.scale import scaled
from grm_server.api.protocols.single_responses import Single, Trainer, judge_singles
from grm_server.api.schemas import HUGE, FirstError, Text, WellFormed
from grm_server.api.service import ServiceDep
from grm_server.errors import InvalidBody, InvalidRequest, LimitExceeded
from grm_server.grouping.types import Slot

router = APIRouter()


ANY_FIELDS: dict[str, Any] = {"additionalProperties": True}
"""Other fields are echoed as they were sent, so their names need not be valid Unicode."""

ItemOutput = Annotated[
    list[dict[str, Any]] | InvalidBody, read_alone(Annotated[list[dict[str, Any]], FirstError, WellFormed])
]
ItemInput = Annotated[
    str | list[dict[str, Any]] | InvalidBody, read_alone(Text | Annotated[list[dict[str, Any]], FirstError, WellFormed])
]


class Asked(BaseModel):
    model_config = ConfigDict(frozen=True, json_schema_extra=ANY_FIELDS)

    input: ItemInput = ""


class Answered(BaseModel):
    """An object of the Responses API."""

    model_config = ConfigDict(frozen=True, json_schema_extra=ANY_FIELDS)

    output: ItemOutput


class Rollout(BaseModel):
    """The response repeats all fields, including those of the dataset."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, json_schema_extra=ANY_FIELDS)

    responses_create_params: Asked
    response: Answered
    principle: Annotated[str | None | InvalidBody, read_alone(Text | None)] = None
    """Criteria to judge by."""
    group_id: str | None = Field(None, alias="_ng_group_id", min_length=1, max_length=256)
    group_attempt: int = Field(0, alias="_ng_group_attempt", ge=0, le=HUGE, strict=True)
    rollout_index: int | None = Field(None, alias="_ng_rollout_index", ge=0, le=HUGE, strict=True)
    task_index: int | None = Field(None, alias="_ng_task_index", strict=True)
    prompt_id: str | None = None


@router.post(
    "/verify", responses=ERRORS | SLOT_ERRORS | judgement_link("/grm_judgement"), summary="NeMo-Gym: one rollout"
)
async def verify(request: Request, body: Rollout, options: OptionsDep, service: ServiceDep) -> dict[str, Any]:
    """The rollout and its `reward`, with `grm_judgement`, `grm_group_size`, `grm_se` and `grm_k_used`."""
    chosen = service.trainers.nemo_gym
    trainer = Trainer("nemo_gym", chosen.reward_scale, "masked", chosen.timeout_s)
    n = service.grouping_settings.n if options.n is None else options.n
    slot, group = None, ""
    if body.group_id is not None:
        if body.rollout_index is None:
            raise InvalidRequest(
                "_ng_group_id needs _ng_rollout_index, the slot in the group", param="_ng_rollout_index"
            )
        if n is not None and body.rollout_index >= n:
            raise LimitExceeded(
                f"_ng_rollout_index is {body.rollout_index}, but a group has {n} members, counted from 0",
                param="_ng_rollout_index",
                details={"limit": n},
            )
        slot, group = Slot(body.group_id, body.group_attempt, body.rollout_index), body.group_id
    elif body.task_index is not None or body.prompt_id is not None:
        # Without a group id, an earlier run may have used the same names, so slots are not reliable.
        group = f"{body.task_index} {body.prompt_id}"
    single = or_error(_single, body, group, slot)
    [judged] = await judge_singles(request, service, trainer, options, [single])
    # As it was sent: the fields of an unreadable rollout are errors.
    rollout: dict[str, Any] = encodable(await request.json())
    if judged.error is not None:
        return _masked(rollout, judged.error.message)
    assert judged.grouped is not None
    return rollout | {
        "reward": judged.value,
        "grm_judgement": judged.grouped.judgement_id,
        "grm_group_size": judged.grouped.members,
        "grm_se": judged.grouped.se,
        "grm_k_used": judged.grouped.k_used,
    }


def _single(body: Rollout, group: str, slot: Slot | None) -> Single:
    content: str | list[dict[str, Any]] = readable(body.responses_create_params.input)
    return Single(
        input_messages(content),
        final_answer(readable(body.response.output)),
        principles=readable(body.principle) or None,
        group=group,
        slot=slot,
    )


def _masked(rollout: dict[str, Any], reason: str) -> dict[str, Any]:
    """The reward is a placeholder. NeMo-RL reads the mask in one of two places, depending on its version."""
    config = rollout.get("instance_config")
    return rollout | {
        "reward": 0.0,
        "mask_sample": True,
        "failure_kind": "judge_failed",
        "failure_reason": reason,
        "_ng_failure_class": "judge_failed",
        "_ng_failure_judge_error": reason,
        "instance_config": (config if isinstance(config, dict) else {}) | {"mask_sample": True},
    }


class Comparison(BaseModel):
    model_config = ConfigDict(frozen=True)

    conversation_history: Annotated[list[dict[str, Any]], FirstError, WellFormed]
    response_objs: Annotated[list[Answered], FirstError]
    principle: Text | None = None


class PairOut(BaseModel):
    response_i: int
    response_j: int
    judge_idx: int = 0
    score_1: float
    score_2: float
    ranking: float


class Compared(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    rewards: list[float]
    """In request order, on the scale `reward_scale`."""
    comparison_results: list[PairOut]
    """Every pair: scores 1 to 5, ranking 1 to 6, below 3.5 where the first is better."""
    metrics: dict[str, float]


@router.post("/compare", responses=ERRORS, summary="NeMo-Gym: all rollouts of a prompt")
async def compare(request: Request, body: Comparison, options: OptionsDep, service: ServiceDep) -> Compared:
    """All responses to one prompt, judged together."""
    if not body.response_objs:
        return Compared(rewards=[], comparison_results=[], metrics={})
    rewards_request = rewards_body(
        input_messages(body.conversation_history),
        [final_answer(readable(answered.output)) for answered in body.response_objs],
        options,
        service,
        principles=body.principle or None,
    )
    [judged] = await judge_all(request, service, [rewards_request])
    scale = options.scale(service.trainers.nemo_gym.reward_scale)
    judgement = judged.judgement
    verdict = judgement.verdict
    return Compared(
        rewards=scaled(verdict.rewards, scale),
        comparison_results=[
            PairOut(response_i=one, response_j=other, **compare_pair(judgement, one, other)._asdict())
            for one, other in combinations(range(len(verdict.rewards)), 2)
        ],
        metrics={
            "grm_mean": fmean(verdict.rewards),
            "grm_k_used": float(judgement.k_used),
            "grm_se": fmean(verdict.se),
        },
    )


@router.post("/seed_session", responses=BODY_ERRORS, summary="NeMo-Gym: begin")
async def seed_session() -> dict[str, Any]:
    """Does nothing: sessions need no preparation."""
    return {}


@router.get("/reverify_mode", summary="NeMo-Gym: judge again")
async def reverify_mode() -> str:
    """`unsupported`: a rollout that is sent again gets the same reward."""
    return "unsupported"


class Verified(BaseModel):
    model_config = ConfigDict(frozen=True)

    verify_responses: Annotated[list[dict[str, Any]], FirstError, WellFormed]


class Aggregated(BaseModel):
    group_level_metrics: list[dict[str, Any]]
    agent_metrics: dict[str, Any]
    key_metrics: dict[str, Any]


@router.post("/aggregate_metrics", responses=BODY_ERRORS, summary="NeMo-Gym: means")
async def aggregate_metrics(body: Verified) -> Aggregated:
    """Mean rewards per task and over all; masked samples are excluded."""
    valid = [row for row in body.verify_responses if _is_number(row.get("reward")) and not row.get("mask_sample")]
    tasks: dict[str, list[float]] = {}
    for row in valid:
        tasks.setdefault(json.dumps(row.get("_ng_task_index")), []).append(row["reward"])
    means = [{"_ng_task_index": json.loads(task), "mean/reward": fmean(of_task)} for task, of_task in tasks.items()]
    overall = {"mean/reward": fmean(row["reward"] for row in valid)} if valid else {}
    return Aggregated(group_level_metrics=means, agent_metrics=overall, key_metrics=overall)


def _is_number(value: object) -> bool:
    """Neither a bool nor a number so large that a sum would overflow."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
