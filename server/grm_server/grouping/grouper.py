"""Responses that come one by one, judged together with the others to their prompt.

arrival -> known? in flight? -> its group, open -> closed -> judged -> a share for each

There is no barrier: a group that does not fill closes all the same (`gathering.closing`). See docs/design/grouping.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace

from grm_server.caching.hashing import fingerprint
from grm_server.caching.ttl_cache import TTLCache
from grm_server.errors import PromptTooLong, SlotConflict, Superseded
from grm_server.grouping.closing_policy import (
    Close,
    GroupState,
    closing,
    gather_s,
    judged_order,
    left_s,
    usual_s,
)
from grm_server.grouping.open_groups import Group, OpenGroups
from grm_server.grouping.types import GroupedReward, PendingResponse, Slot
from grm_server.judging.store import Judged
from grm_server.pipeline.types import ScoreRequest
from grm_server.telemetry.metrics import Metrics


class Grouper:
    """The groups of one server. All state is bounded: by `max_waiting`, `max_chars`, `max_judged` and time."""

    def __init__(
        self,
        judge: Callable[[ScoreRequest, str], Awaitable[Judged]],
        metrics: Metrics,
        *,
        max_waiting: int,
        max_chars: int,
        max_judged: int,
        ttl_s: float,
    ) -> None:
        self._judge = judge
        self._metrics = metrics.grouping
        self._max_waiting = max_waiting
        self._open = OpenGroups(max_waiting, max_chars)
        self._judging: dict[bytes, Group] = {}
        """By `_fingerprint_of` of each response."""
        self._running: dict[Group, asyncio.Task[None]] = {}
        """Those that are judged and count."""
        self._tasks: set[asyncio.Task[None]] = set()
        """All that are judged, also the abandoned ones that are being aborted."""
        self._known: TTLCache[bytes, GroupedReward] = TTLCache(max_judged, ttl_s)
        self._slots: TTLCache[Slot, bytes] = TTLCache(max_judged, ttl_s)
        self._attempts: TTLCache[tuple[str, str], int] = TTLCache(max_judged, ttl_s)
        self._took_s: deque[float] = deque(maxlen=64)
        self._draining = False

    async def submit(self, arrival: PendingResponse) -> GroupedReward:
        """Wait for the reward of a response. A caller who is cancelled does not wait any longer, and is not counted.

        The same response to the same prompt is judged once, whether it comes again as a duplicate in its group, as a
        retry while it is judged, or later. Raises SlotConflict, Superseded, and what judging raises.
        """
        mark = _fingerprint_of(arrival.key, arrival.response)
        if arrival.slot is not None:
            self._claim(arrival.slot, mark)
        if (known := self._known.get(mark)) is not None:
            self._metrics.shared.labels("recent").inc()
            return known
        seat = arrival.slot or object()
        if (group := self._judging.get(mark)) is not None:
            self._metrics.shared.labels("in_flight").inc()
        else:
            group = self._seated(arrival, seat)
        group.waiters += 1
        try:
            grouped = (await asyncio.shield(group.answer))[arrival.response]
            if isinstance(grouped, PromptTooLong):
                raise grouped
            return grouped
        finally:
            group.waiters -= 1
            self._leave(group, seat)

    def drain(self) -> None:
        """Judge what there is, and from now on what comes as it comes."""
        self._draining = True
        for group in self._open:
            self._close(group, Close.DRAIN)

    async def close(self) -> None:
        """Abort what is being judged."""
        for group in self._open:
            self._drop(group)
            group.answer.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _claim(self, slot: Slot, mark: bytes) -> None:
        """A slot holds one response, and the latest attempt retires the earlier ones."""
        group = slot.tenant, slot.group
        latest = self._attempts.get(group)
        if latest is not None and slot.attempt < latest:
            raise SlotConflict(f"attempt {slot.attempt} of this group has been replaced by attempt {latest}")
        if latest is not None and slot.attempt > latest:
            self._retire(slot)
        self._attempts.put(group, slot.attempt)
        if self._slots.get(slot) not in (None, mark):
            raise SlotConflict(f"slot {slot.index} of this group holds another response or prompt")
        self._slots.put(slot, mark)

    def _retire(self, newer: Slot) -> None:
        for group in self._open:
            slot = group.first.slot
            if slot is None or (slot.tenant, slot.group) != (newer.tenant, newer.group):
                continue
            if slot.attempt < newer.attempt:
                self._drop(group)
                _fail(group, Superseded("this group was replaced by a later attempt"))

    def _seated(self, arrival: PendingResponse, seat: object) -> Group:
        now_s = asyncio.get_running_loop().time()
        group = self._open.get(arrival.key)
        if group is None:
            waits_s = gather_s(arrival.window_s, arrival.timeout_s, usual_s(self._took_s))
            answer: asyncio.Future[dict[str, GroupedReward | PromptTooLong]] = (
                asyncio.get_running_loop().create_future()
            )
            group = Group(arrival, now_s, now_s, waits_s, answer)
            self._open.add(group)
            self._metrics.open_groups.inc()
        if seat not in group.seats:
            if arrival.response in group.responses:
                self._metrics.shared.labels("duplicate").inc()
            self._open.seat(group, seat, arrival.response, now_s)
            group.n = arrival.n if arrival.n is not None else group.n
        if self._draining:
            self._close(group, Close.DRAIN)
            return group
        self._settle(group)
        while (one_too_many := self._open.too_many()) is not None:
            self._close(one_too_many, Close.PRESSURE)
        return group

    def _settle(self, group: Group) -> None:
        """Close the group now, or see to it that it closes in time."""
        loop = asyncio.get_running_loop()
        if group.timer is not None:
            group.timer.cancel()
        at_s, reason = closing(
            GroupState(
                members=len(group.seats),
                n=group.n,
                distinct=len(group.responses),
                max_responses=group.first.max_responses,
                opened_s=group.opened_s,
                last_s=group.last_s,
                idle_s=group.first.idle_s,
                gather_s=group.gather_s,
            )
        )
        if at_s <= loop.time():
            self._close(group, reason)
        else:
            group.timer = loop.call_at(at_s, self._close, group, reason)

    def _leave(self, group: Group, seat: object) -> None:
        """A caller who left an open group is not one of it: a retry comes after its connection was closed. A slot is
        kept; its response is that of any retry."""
        if self._open.get(group.first.key) is not group or isinstance(seat, Slot) or seat not in group.seats:
            return
        self._open.unseat(group, seat)
        if not group.seats:
            self._drop(group)

    def _drop(self, group: Group) -> None:
        """The group is not open any more."""
        self._open.remove(group)
        self._metrics.open_groups.dec()

    def _close(self, group: Group, reason: Close) -> None:
        self._drop(group)
        now_s = asyncio.get_running_loop().time()
        self._metrics.group_size.labels(reason.value).observe(len(group.seats))
        for _, arrived_s in group.seats.values():
            self._metrics.wait_s.observe(now_s - arrived_s)
        if len(self._running) >= self._max_waiting:
            abandoned = next((running for running in self._running if not running.waiters), None)
            if abandoned is not None:
                self._abandon(abandoned)
        responses = judged_order(group.responses)
        self._judging.update({_fingerprint_of(group.first.key, response): group for response in responses})
        task = self._running[group] = asyncio.ensure_future(self._judged(group, responses, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _abandon(self, group: Group) -> None:
        """Here and not when its task ends: one that is cancelled before it began does nothing in its end."""
        self._forget(group)
        self._running.pop(group).cancel()
        group.answer.cancel()

    async def _judged(self, group: Group, responses: tuple[str, ...], reason: Close) -> None:
        """Judge a group to its end, also when all have left: their retries will ask for it."""
        loop, first = asyncio.get_running_loop(), group.first
        began_s = loop.time()
        try:
            request = self._request(group, responses)
            first.charge(request.samples)
            rewards_by_response, oversized = await self._fitting(group, request, reason)
            self._took_s.append(loop.time() - began_s)
            for response, grouped in rewards_by_response.items():
                self._known.put(_fingerprint_of(first.key, response), grouped)
            group.answer.set_result({**rewards_by_response, **oversized})
        except Exception as error:
            _fail(group, error)
        finally:
            # Only what a shutdown or a lack of room aborted has no answer.
            group.answer.cancel()
            self._forget(group)
            self._running.pop(group, None)

    async def _fitting(
        self, group: Group, request: ScoreRequest, reason: Close
    ) -> tuple[dict[str, GroupedReward], dict[str, PromptTooLong]]:
        """Judge those that fit the model's context: one that runs on must not cost the others their rewards."""
        responses = request.task.responses
        try:
            judged = await self._judge(request, group.first.task)
            return _shares(judged, responses, reason, len(group.seats)), {}
        except PromptTooLong as error:
            oversized = {responses[i]: error for i in error.oversized}
            if not oversized or len(oversized) == len(responses):
                raise
        rest = self._request(group, tuple(response for response in responses if response not in oversized))
        # It has had its turn, and gave it back unused.
        rest = replace(rest, priority="high")
        rewards_by_response, more = await self._fitting(group, rest, reason)
        return rewards_by_response, oversized | more

    def _request(self, group: Group, responses: tuple[str, ...]) -> ScoreRequest:
        """Due in time for the caller who has waited the longest."""
        request, timeout_s = group.first.ask(responses), group.first.timeout_s
        if timeout_s is None:
            return request
        waited_s = asyncio.get_running_loop().time() - group.opened_s
        return replace(request, deadline_s=min(request.deadline_s, left_s(timeout_s, waited_s)))

    def _forget(self, group: Group) -> None:
        """Whoever comes from now on does not share what is being judged."""
        for mark in [_fingerprint_of(group.first.key, response) for response in group.responses]:
            if self._judging.get(mark) is group:
                del self._judging[mark]


def _fingerprint_of(key: str, response: str) -> bytes:
    return fingerprint(key, response)


def _fail(group: Group, error: Exception) -> None:
    group.answer.set_exception(error)
    # Nobody may be there to hear of it.
    group.answer.exception()


def _shares(judged: Judged, responses: tuple[str, ...], reason: Close, members: int) -> dict[str, GroupedReward]:
    judgement = judged.judgement
    return {
        response: GroupedReward(
            judgement_id=judged.id,
            index=index,
            rewards=judgement.verdict.rewards,
            se=judgement.verdict.se[index],
            aggregate=judgement.aggregate,
            k_used=judgement.k_used,
            closed=reason,
            members=members,
        )
        for index, response in enumerate(responses)
    }
