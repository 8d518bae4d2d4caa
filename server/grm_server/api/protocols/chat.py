"""Rewards as chat completions: NVIDIA's hosted reward models, and the pairwise GenRM of NeMo-RL.

The last turn is the response, and the reward stands both in the content (`reward:7.25`) and in the log-probabilities,
because clients read one or the other. With turns of the roles `response_1` and `response_2` it is a comparison, and the
content is the JSON that NeMo-RL reads.
"""

from __future__ import annotations

import json
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from grm_server.api.openapi import ERRORS, judgement_link
from grm_server.api.protocols.batch import judge_all
from grm_server.api.protocols.messages import Turn, conversation
from grm_server.api.protocols.options import Options, OptionsDep, rewards_body
from grm_server.api.protocols.pairwise import pair
from grm_server.api.protocols.single_responses import Single, Trainer, rewards
from grm_server.api.protocols.untemplate import plain
from grm_server.api.schemas import FirstError
from grm_server.api.service import Service, ServiceDep
from grm_server.errors import InvalidRequest

router = APIRouter()

FIRST, SECOND, PRINCIPLE = "response_1", "response_2", "principle"


class ChatCall(BaseModel):
    """What else OpenAI's API knows, such as `temperature`, is the policy's and is ignored."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    model: str = ""
    """Ignored."""
    messages: Annotated[list[Turn], FirstError] = Field(min_length=1)
    """The last one is the assistant's; or there are one of the role `response_1` and one of `response_2`."""
    stream: bool = Field(False, strict=True)


class TokenOut(BaseModel):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[Any] = []


class LogprobsOut(BaseModel):
    content: list[TokenOut]
    refusal: None = None


class ChatMessageOut(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    index: int = 0
    message: ChatMessageOut
    logprobs: LogprobsOut | None
    finish_reason: Literal["stop"] = "stop"


class ChatUsage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class ChatCompletion(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    """Of the judgement: GET /v1/judgements/{id}."""
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: ChatUsage | None
    """Null where one judgement is shared by several responses."""


@router.post("/v1/chat/completions", responses=ERRORS | judgement_link("/id"), summary="Rewards as chat completions")
async def completions(request: Request, body: ChatCall, options: OptionsDep, service: ServiceDep) -> ChatCompletion:
    """`reward:7.25` for the last turn; or scores and ranking of `response_1` and `response_2`."""
    if body.stream:
        raise InvalidRequest("a reward is one number and does not stream", param="stream")
    if {FIRST, SECOND} <= {turn.role for turn in body.messages}:
        return await _compared(request, body, options, service)
    *before, last = body.messages
    if last.role != "assistant":
        raise InvalidRequest(
            "the last message is the response to be judged, and must be of the role assistant", param="messages"
        )
    chosen = service.trainers.chat
    # Alone unless the URL says otherwise: a client of this API asks for one reward and waits.
    trainer = Trainer("chat", chosen.reward_scale, "error", chosen.timeout_s, whole_groups=True)
    [judged] = await rewards(request, service, trainer, options, [Single(conversation(before), plain(last.content))])
    # By its policy this is an error, where there is none.
    assert judged.grouped is not None
    assert judged.value is not None
    value = round(judged.value, 4)
    logprobs = LogprobsOut(content=[TokenOut(token="reward", logprob=value)])
    return _completion(service, judged.grouped.judgement_id, f"reward:{value}", logprobs, None)


async def _compared(request: Request, body: ChatCall, options: Options, service: Service) -> ChatCompletion:
    by_role = {turn.role: plain(turn.content) for turn in body.messages}
    history = [turn for turn in body.messages if turn.role not in (FIRST, SECOND, PRINCIPLE)]
    asked = rewards_body(
        conversation(history),
        [by_role[FIRST], by_role[SECOND]],
        options,
        service,
        principles=by_role.get(PRINCIPLE) or None,
    )
    [judged] = await judge_all(request, service, [asked])
    read, wrote = judged.judgement.prompt_tokens, judged.judgement.completion_tokens
    usage = ChatUsage(prompt_tokens=read, completion_tokens=wrote, total_tokens=read + wrote)
    return _completion(service, judged.id, json.dumps(pair(judged.judgement, 0, 1)._asdict()), None, usage)


def _completion(
    service: Service, judgement_id: str, content: str, logprobs: LogprobsOut | None, usage: ChatUsage | None
) -> ChatCompletion:
    return ChatCompletion(
        id=judgement_id,
        created=int(time.time()),
        model=service.engine.model,
        choices=[Choice(message=ChatMessageOut(content=content), logprobs=logprobs)],
        usage=usage,
    )
