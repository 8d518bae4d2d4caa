"""Requests that hold many responses: all responses to a prompt, or many items of which each is judged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar

from fastapi import Request

from grm_server.api import schemas
from grm_server.api.from_wire import to_score_request
from grm_server.api.service import Service, caller_of, charge_quota, judge_charged, unless_disconnected
from grm_server.errors import LimitExceeded
from grm_server.judging.service import counted_errors
from grm_server.judging.store import Judged
from grm_server.settings import LimitSettings

T = TypeVar("T")

ITEMS_PER_TURN = 4
"""Items to work on in one turn of the event loop. Each takes about 1 ms until it waits for the engine."""


def check_items(param: str, count: int, limits: LimitSettings) -> None:
    """Raises LimitExceeded for a POST with too many items."""
    if count > limits.max_items:
        raise LimitExceeded(
            f"{param} has {count} items, over the limit limits.max_items = {limits.max_items}; send several requests",
            param=param,
            details={"limit": limits.max_items},
        )


async def in_turns(items: Iterable[T]) -> AsyncIterator[T]:
    """The items, few in each turn of the event loop, so other requests are answered meanwhile."""
    for index, item in enumerate(items):
        if index and index % ITEMS_PER_TURN == 0:
            await asyncio.sleep(0)
        yield item


async def judge_all(request: Request, service: Service, bodies: Iterable[schemas.RewardsRequest]) -> list[Judged]:
    """Judge several groups concurrently; the results are in the order of `bodies`, which may be built one by one as
    they are needed. Identical groups share a judgement.

    Raises what judging raises, and ClientGone."""
    with counted_errors(service.metrics):
        service.engine.raise_if_unavailable()
        caller = caller_of(request)
        groups = [(to_score_request(body, service.policy, caller), body.task) async for body in in_turns(bodies)]
        charge_quota(service, caller, [score_request for score_request, _ in groups])
    works = (judge_charged(service, caller, score_request, task) for score_request, task in groups)
    return [answered.judged for answered in await unless_disconnected(request, gather_in_order(works))]


async def gather_in_order(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all concurrently and return their results in order. The first error cancels the others and is raised.

    They start a few at a time. Works that start together would also take their later steps together, each time in one
    turn of the event loop."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) async for work in in_turns(works)]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
