"""What a request may ask for and costs, by the API key that it came with.

A request pays for the samples that it asks for when it is asked, of all responses that are judged together at once: a
group that a trainer sends one by one pays when it closes. Until then its members are refused if nothing is left.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from fastapi import Request

from grm_server.api.from_wire import RequestPolicy
from grm_server.api.middleware.quota import Caller
from grm_server.pipeline.types import ScoreRequest


def caller_of(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


def policy_for(caller: Caller, policy: RequestPolicy) -> RequestPolicy:
    """The server's policy, with the k of this caller."""
    if caller.max_k is None or caller.max_k >= policy.limit_k:
        return policy
    return replace(policy, k=min(policy.k, caller.max_k), limit_k=caller.max_k, limit_k_name="max_k of this API key")


def charge(caller: Caller, asked: Iterable[ScoreRequest]) -> None:
    """Raises RateLimited, for all of them."""
    caller.check_samples()
    for one in asked:
        caller.take_samples(one.samples)
