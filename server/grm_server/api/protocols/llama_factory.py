"""LLaMA-Factory, `reward_model_type: api`, `reward_model: http://host:8000/v1/score/evaluation`.

It posts a mini-batch of decoded texts, each with prompt and response, and reads only `scores` from the response. PPO
draws one response per prompt, so a call holds all responses to its prompts.
"""

from __future__ import annotations

import secrets
from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from grm_server.api.openapi import ERRORS
from grm_server.api.protocols.batch import check_items
from grm_server.api.protocols.items import ItemText, chars, or_error, readable
from grm_server.api.protocols.options import OptionsDep
from grm_server.api.protocols.single_responses import Single, Trainer, from_one_text, judge_singles
from grm_server.api.protocols.threads import run_in_thread_if_large
from grm_server.api.service import ServiceDep
from grm_server.errors import InvalidBody

router = APIRouter()


class Evaluation(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    model: str = ""
    """Ignored."""
    messages: list[ItemText]
    """Prompt and response, special tokens and padding included."""


class Evaluated(BaseModel):
    id: str
    object: Literal["score.evaluation"] = "score.evaluation"
    model: str
    scores: list[float]


@router.post("/v1/score/evaluation", responses=ERRORS, summary="LLaMA-Factory")
async def evaluation(request: Request, body: Evaluation, options: OptionsDep, service: ServiceDep) -> Evaluated:
    """The rewards of `reward_model_type: api`, one for each text."""
    check_items("messages", len(body.messages), service.policy.limits)
    chosen = service.trainers.llama_factory
    trainer = Trainer("llama_factory", chosen.reward_scale, chosen.failure, chosen.timeout_s, whole_groups=True)
    singles = await run_in_thread_if_large(
        chars(body.messages), lambda: [or_error(_single, text) for text in body.messages]
    )
    judged = await judge_singles(request, service, trainer, options, singles)
    # No `failure` setting of this trainer gives None.
    scores = [reward.value or 0.0 for reward in judged]
    return Evaluated(id=f"scoreval-{secrets.token_hex(8)}", model=service.engine.model, scores=scores)


def _single(text: str | InvalidBody) -> Single:
    return from_one_text(readable(text))
