"""A vote as a chat completion: k samples of the caller's own chat, each with a verdict; the answer is the winning one.

For tools that evaluate with a judge prompt of their own: their parser reads the verdict in the answer's text.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence

from fastapi import Request

from grm_server.api.protocols.messages import Turn
from grm_server.api.protocols.options import Options
from grm_server.api.protocols.vote_request import to_vote_request
from grm_server.api.schemas.vote import (
    CompletionTokensDetails,
    VoteCall,
    VoteChoice,
    VoteCompletion,
    VoteMessage,
    VoteOut,
    VoteTokens,
    VoteUsage,
)
from grm_server.api.service import Service, caller_of, charge_quota, given_back_if_refused, unless_disconnected
from grm_server.judging.service import counted_errors
from grm_server.pipeline.vote import Vote
from grm_server.telemetry.context import note_judgement


async def vote_on_chat(
    request: Request, call: VoteCall, messages: Sequence[Turn], options: Options, service: Service
) -> VoteCompletion:
    """Raises what `to_vote_request` and voting raise, and ClientGone."""
    caller = caller_of(request)
    with counted_errors(service.metrics):
        service.engine.raise_if_unavailable()
        vote_request = to_vote_request(call, messages, options, service, caller)
        charge_quota(service, caller, [vote_request])
    with given_back_if_refused(caller, vote_request):
        vote = await unless_disconnected(request, service.judging.vote(vote_request))
    completion = _completion(vote, service.engine.model)
    note_judgement(completion.id, k_used=len(vote.outcomes), samples=len(vote.outcomes), stop=vote.stop_reason.value)
    return completion


def _completion(vote: Vote, model: str) -> VoteCompletion:
    samples, sample, counted = vote.samples, vote.example.sample, vote.tally
    valid = sum(counted.votes.values())
    tokens = VoteTokens(
        prompt=sum(one.prompt_tokens for one in samples),
        cached=sum(one.cached_tokens for one in samples),
        completion=sum(one.completion_tokens for one in samples),
        thought=sum(one.thought_tokens for one in samples),
    )
    return VoteCompletion(
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=int(time.time()),
        model=model,
        choices=[
            VoteChoice(
                message=VoteMessage(content=vote.answer, reasoning_content=sample.thought),
                finish_reason="length" if sample.cut else "stop",
            )
        ],
        usage=VoteUsage(
            prompt_tokens=sample.prompt_tokens,
            completion_tokens=tokens.completion,
            total_tokens=sample.prompt_tokens + tokens.completion,
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=tokens.thought),
        ),
        grm=VoteOut(
            kind=vote.request.verdict.format.kind,
            verdict=counted.verdict,
            votes=dict(counted.votes),
            shares={verdict: count / valid for verdict, count in counted.votes.items()},
            scores=None if counted.means is None else list(counted.means),
            k=vote.request.k,
            k_valid=valid,
            unparsed={reason.value: count for reason, count in vote.failures.items()},
            forced_leads=sum(bool(one.unmarked) for one in samples),
            stop_reason="deadline" if vote.stop_reason == "deadline" else "full_k",
            temperature=vote.request.sampling.temperature,
            tokens=tokens,
        ),
    )
