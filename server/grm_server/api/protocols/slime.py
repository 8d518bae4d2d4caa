"""slime and miles, `--rm-type remote_rm --rm-url http://host:8000/reward?n=8`.

They post one response at a time, over at most 64 connections, and use the whole response body as the reward: a bare
number, or an object with `--reward-key reward`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from grm_server.api.openapi import ERRORS, SLOT_ERRORS, judgement_link
from grm_server.api.protocols.chat_formats import unknown_form
from grm_server.api.protocols.items import ItemLabel, ItemText, chars, or_error, read_alone, readable
from grm_server.api.protocols.messages import Turn, conversation
from grm_server.api.protocols.options import Options, OptionsDep
from grm_server.api.protocols.single_responses import Single, Trainer, as_reference, form_of, judge_singles
from grm_server.api.protocols.threads import run_in_thread_if_large
from grm_server.api.protocols.untemplate import trimmed_response, untemplate
from grm_server.api.schemas import FirstError, Text
from grm_server.api.service import ServiceDep
from grm_server.api.thoughts import opens_thought
from grm_server.errors import InvalidBody
from grm_server.grouping.types import Slot

router = APIRouter()

ItemPrompt = Annotated[
    str | list[Turn] | InvalidBody, read_alone(Text | Annotated[list[Turn], Field(min_length=1), FirstError])
]


class SlimeSample(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    prompt: ItemPrompt
    """Templated text, or messages."""
    response: ItemText
    label: ItemLabel = None
    group: str = Field("", max_length=256)
    """For your own clients: a name for the responses that belong together, if equal prompts are not enough."""
    slot: int | None = Field(None, ge=0, strict=True)
    """With `group`: the place in it. A retry of a slot gets the same reward; with another response it gets 409."""
    attempt: int = Field(0, ge=0, strict=True)
    """With `slot`: a later attempt at the whole group replaces an earlier one."""


class SlimeReward(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    reward: float | None
    """On the scale `reward_scale`; null only if judging failed and the setting `trainers.slime.failure` is `none`."""
    score: float
    """0 to 1."""
    judgement: str | None
    """For GET /v1/judgements/{id}; null if the response was not judged."""
    group_size: int
    """Responses in the group, duplicates included."""
    se: float
    """Standard error of the reward, 1 to 10."""
    k_used: int
    unknown_template: bool
    """Whether the prompt holds a token of no known chat template; it was judged as it is."""


@router.post("/reward", responses=ERRORS | SLOT_ERRORS | judgement_link("/judgement"), summary="slime and miles")
async def reward(
    request: Request,
    body: SlimeSample,
    options: OptionsDep,
    service: ServiceDep,
    shape: Annotated[
        Literal["number", "object"], Query(description="`object` is for `--reward-key reward`.")
    ] = "number",
) -> float | SlimeReward | None:
    """The reward of `--rm-url`: a bare number."""
    chosen = service.trainers.slime
    trainer = Trainer("slime", chosen.reward_scale, chosen.failure, chosen.timeout_s)
    single = await run_in_thread_if_large(chars((body.response, body.prompt)), lambda: or_error(_single, body, options))
    [judged] = await judge_singles(request, service, trainer, options, [single])
    if shape == "number":
        return judged.value
    grouped = judged.grouped
    return SlimeReward(
        reward=judged.value,
        score=judged.unit,
        judgement=None if grouped is None else grouped.judgement_id,
        group_size=0 if grouped is None else grouped.members,
        se=0.0 if grouped is None else grouped.se,
        k_used=0 if grouped is None else grouped.k_used,
        unknown_template=bool(form_of(single)),
    )


def _single(body: SlimeSample, options: Options) -> Single:
    prompt: str | list[Turn] = readable(body.prompt)
    response = readable(body.response)
    messages = untemplate(prompt) if isinstance(prompt, str) else conversation(prompt)
    slot = Slot(body.group, body.attempt, body.slot) if body.group and body.slot is not None else None
    template = prompt if isinstance(prompt, str) else ""
    return Single(
        messages,
        trimmed_response(response),
        as_reference(body.label, options),
        group=body.group,
        slot=slot,
        opened_thought=opens_thought(template),
        unknown_form=unknown_form(template),
    )
