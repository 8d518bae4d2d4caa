"""OpenRLHF, `--reward.remote_url http://host:8000/get_reward?n=8`.

It posts lists of one item: prompt and response as decoded from tokens, the templated prompt, the label. After a status
other than 200 it retries five times within seconds, and then crashes without the reward. It does not check the length
of `rewards`, so each item always gets one number, also if the item cannot be read, and every sample gets the same
numeric logs.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from grm_server.api.openapi import ERRORS
from grm_server.api.protocols.batch import check_items
from grm_server.api.protocols.chat_formats import unknown_form
from grm_server.api.protocols.items import ItemLabel, ItemText, chars, or_error, readable
from grm_server.api.protocols.options import Options, OptionsDep
from grm_server.api.protocols.single_responses import (
    Reward,
    Single,
    Trainer,
    as_reference,
    form_of,
    from_one_text,
    judge_singles,
)
from grm_server.api.protocols.threads import run_in_thread_if_large
from grm_server.api.protocols.untemplate import response_after, untemplate
from grm_server.api.service import ServiceDep
from grm_server.api.thoughts import opens_thought
from grm_server.errors import InvalidRequest

router = APIRouter()


class OpenRLHFCall(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    query: list[ItemText]
    """Prompt and response, special tokens included."""
    prompts: list[ItemText] = []
    """The templated prompts. Without them the response is the last assistant turn of `query`."""
    labels: list[ItemLabel] = []


class OpenRLHFRewards(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    rewards: list[float]
    """On the scale `reward_scale`."""
    scores: list[float]
    """0 to 1 on any scale, for dynamic filtering."""
    extra_logs: dict[str, list[float]]
    """Always the same keys: `grm_raw`, `grm_se`, `grm_k_used`, `grm_group_size`, `grm_failed`,
    `grm_unknown_template`."""


@router.post("/get_reward", responses=ERRORS, summary="OpenRLHF")
async def get_reward(request: Request, body: OpenRLHFCall, options: OptionsDep, service: ServiceDep) -> OpenRLHFRewards:
    """The rewards of `--reward.remote_url`. Empty lists get empty lists."""
    for name, values in (("prompts", body.prompts), ("labels", body.labels)):
        if values and len(values) != len(body.query):
            raise InvalidRequest(f"query has {len(body.query)} items, but {name} has {len(values)}", param=name)
    check_items("query", len(body.query), service.policy.limits)
    chosen = service.trainers.openrlhf
    trainer = Trainer("openrlhf", chosen.reward_scale, chosen.failure, chosen.timeout_s)
    singles = await run_in_thread_if_large(
        chars(body.query) + chars(body.prompts),
        lambda: [or_error(_single, body, at, options) for at in range(len(body.query))],
    )
    judged = await judge_singles(request, service, trainer, options, singles)
    return OpenRLHFRewards(
        # No `failure` setting of this trainer gives None.
        rewards=[reward.value or 0.0 for reward in judged],
        scores=[reward.unit for reward in judged],
        extra_logs=_logs(judged) | {"grm_unknown_template": [float(bool(form_of(one))) for one in singles]},
    )


def _single(body: OpenRLHFCall, at: int, options: Options) -> Single:
    reference = as_reference(body.labels[at], options) if body.labels else None
    query = readable(body.query[at])
    if body.prompts:
        prompt = readable(body.prompts[at])
        return Single(
            untemplate(prompt),
            response_after(prompt, query),
            reference,
            opened_thought=opens_thought(prompt),
            unknown_form=unknown_form(prompt),
        )
    return from_one_text(query, reference)


def _logs(judged: list[Reward]) -> dict[str, list[float]]:
    grouped_rewards = [reward.grouped for reward in judged]
    return {
        "grm_raw": [0.0 if grouped is None else grouped.rewards[grouped.index] for grouped in grouped_rewards],
        "grm_se": [0.0 if grouped is None else grouped.se for grouped in grouped_rewards],
        "grm_k_used": [0.0 if grouped is None else float(grouped.k_used) for grouped in grouped_rewards],
        "grm_group_size": [0.0 if grouped is None else float(grouped.members) for grouped in grouped_rewards],
        "grm_failed": [float(grouped is None) for grouped in grouped_rewards],
    }
