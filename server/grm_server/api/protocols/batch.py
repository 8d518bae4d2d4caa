"""Requests that hold all responses to a prompt."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from fastapi import Request

from grm_server.api import schemas
from grm_server.api.from_wire import to_score_request
from grm_server.api.service import Service, caller_of, charge_quota, judge_charged, unless_disconnected
from grm_server.judging.service import counted_errors
from grm_server.judging.store import Judged

T = TypeVar("T")


async def judge_all(request: Request, service: Service, bodies: Sequence[schemas.RewardsRequest]) -> list[Judged]:
    """Judge several groups concurrently; the results are in the order of `bodies`. Identical groups share a judgement.

    Raises what judging raises, and ClientGone."""
    with counted_errors(service.metrics):
        service.engine.raise_if_unavailable()
        caller = caller_of(request)
        score_requests = [to_score_request(body, service.policy, caller) for body in bodies]
        charge_quota(service, caller, score_requests)
    works = [judge_charged(service, caller, one, body.task) for one, body in zip(score_requests, bodies, strict=True)]
    return [answered.judged for answered in await unless_disconnected(request, gather_in_order(works))]


async def gather_in_order(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all concurrently and return their results in order. The first error cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
