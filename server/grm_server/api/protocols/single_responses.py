"""Responses that a trainer sends one by one: each waits for the others to its prompt and gets its share."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fastapi import Request

from grm_server.api.error_handlers import error_detail, internal_error
from grm_server.api.from_wire import check_seconds, to_score_request
from grm_server.api.protocols.batch import in_order
from grm_server.api.protocols.chat_formats import bare
from grm_server.api.protocols.options import Options, rewards_body
from grm_server.api.protocols.scale import middle, scaled
from grm_server.api.protocols.untemplate import part
from grm_server.api.quota import Caller, caller_of, policy_for
from grm_server.api.schemas import ErrorDetail
from grm_server.api.service import Service, unless_disconnected
from grm_server.caching.hashing import fingerprint
from grm_server.errors import GRMError, SlotConflict, Superseded
from grm_server.grm.types import Message
from grm_server.grouping.types import GroupedReward, PendingResponse, Slot
from grm_server.judging.store import counted_errors
from grm_server.pipeline.types import ScoreRequest
from grm_server.settings import RewardScale
from grm_server.telemetry.context import note_error, note_judgement

logger = logging.getLogger(__name__)

UNPARTED = "(Prompt and answer stand in one text, which follows as the response. Judge how well it answers itself.)"


@dataclass(frozen=True, slots=True)
class Trainer:
    """How a trainer is served."""

    name: str
    scale: RewardScale
    failure: Literal["neutral", "none", "masked", "error"]
    """What a response gets that could not be judged."""
    timeout_s: float | None
    whole_groups: bool = False
    """One call holds all responses to a prompt that will come, unless the URL says otherwise."""


@dataclass(frozen=True, slots=True)
class Single:
    """A response and what it answers."""

    messages: tuple[Message, ...]
    response: str
    reference: str | None = None
    principles: str | None = None
    group: str = ""
    """The trainer's own name for those that belong together."""
    slot: Slot | None = None


@dataclass(frozen=True, slots=True)
class Reward:
    """What a response gets."""

    value: float | None
    """On the trainer's scale. None: it could not be judged, and the trainer understands that."""
    unit: float
    """0..1, of what could not be judged the middle."""
    grouped: GroupedReward | None
    error: ErrorDetail | None
    """Why there is no share."""


async def rewards(
    request: Request, service: Service, trainer: Trainer, options: Options, singles: Sequence[Single]
) -> list[Reward]:
    """(m,), in this order. Raises what makes a request wrong; also what makes it fail, if the trainer's policy is
    `error`; and ClientGone."""
    caller = caller_of(request)
    arrivals = [_arrival(caller, service, trainer, options, single) for single in singles]
    if trainer.whole_groups and options.n is None:
        there = Counter(arrival.key for arrival in arrivals)
        arrivals = [replace(arrival, n=there[arrival.key]) for arrival in arrivals]
    works = in_order([_reward(service, trainer, options, arrival) for arrival in arrivals])
    return await unless_disconnected(request, works)


def from_one_text(text: str, reference: str | None = None) -> Single:
    """Prompt and response in one text. What cannot be told apart is judged as a whole, and with nothing else."""
    parted = part(text)
    if parted is None:
        return Single((Message("user", UNPARTED),), bare(text), reference, group=fingerprint(text).hex())
    return Single(*parted, reference)


def as_reference(label: object, options: Options) -> str | None:
    """A dataset's label as text that the judge can be shown."""
    if label is None or options.label == "ignore":
        return None
    text = label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)
    return text.strip() or None


def _arrival(caller: Caller, service: Service, trainer: Trainer, options: Options, single: Single) -> PendingResponse:
    policy, gathering = policy_for(caller, service.policy), service.gathering
    body = rewards_body(
        single.messages,
        [single.response],
        options,
        service,
        reference=single.reference,
        principles=single.principles,
    )
    with counted_errors(service.metrics):
        # What waits takes up memory.
        for name, value in (("idle_s", options.idle_s), ("window_s", options.window_s)):
            if value is not None:
                check_seconds(name, value, policy)
        alone = to_score_request(body, policy, caller.name)
        caller.check_samples()
    attempt = "" if single.slot is None else str(single.slot.attempt)

    def ask(responses: tuple[str, ...]) -> ScoreRequest:
        asked = to_score_request(body.model_copy(update={"responses": list(responses)}), policy, caller.name)
        # A trainer that gets a number whatever happens is better off with a late one than with one that says nothing.
        return replace(asked, wait_until_deadline=trainer.failure != "error")

    shared = body.model_dump_json(exclude={"responses", "priority"})
    return PendingResponse(
        tenant=caller.name,
        key=fingerprint(caller.name, single.group, attempt, shared).hex(),
        response=single.response,
        prompt_chars=len(shared),
        ask=ask,
        charge=caller.take_samples,
        task=options.task,
        n=gathering.n if options.n is None else options.n,
        max_responses=max(1, min(policy.limit_responses, alone.list_size * (policy.limit_samples // alone.k))),
        idle_s=gathering.idle_s if options.idle_s is None else options.idle_s,
        window_s=gathering.window_s if options.window_s is None else options.window_s,
        timeout_s=trainer.timeout_s,
        slot=None if single.slot is None else replace(single.slot, tenant=caller.name),
    )


async def _reward(service: Service, trainer: Trainer, options: Options, arrival: PendingResponse) -> Reward:
    scale = options.scale(trainer.scale)
    try:
        grouped = await service.grouping.submit(arrival)
        note_judgement(grouped.judgement_id, n=len(grouped.rewards), k_used=grouped.k_used)
    except (SlotConflict, Superseded):
        raise
    except Exception as error:
        service.metrics.grouping.failed_rewards.labels(trainer.name, trainer.failure).inc()
        if trainer.failure == "error":
            raise
        detail = error_detail(error) if isinstance(error, GRMError) else internal_error(error)
        note_error(detail.code)
        logger.error("a response from %s was not judged (%s); it gets: %s", trainer.name, detail.code, trainer.failure)
        value = middle(scale) if trainer.failure == "neutral" else None
        return Reward(value, middle("unit"), None, detail)
    if scale == "centered" and len(grouped.rewards) == 1:
        service.metrics.grouping.uncentered.labels(trainer.name).inc()
    return Reward(
        scaled(grouped.rewards, scale)[grouped.index], scaled(grouped.rewards, "unit")[grouped.index], grouped, None
    )
