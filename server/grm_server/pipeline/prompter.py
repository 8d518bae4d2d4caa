"""The prompts of one request: which lists fit the model's context, and each prompt in the model's tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from grm_server.engine.base import Prepared
from grm_server.errors import PromptTooLong
from grm_server.grm.plan import Course, course, request_seed
from grm_server.grm.prompts import JudgeTemplate, defused, write_script
from grm_server.grm.types import Order, Strict
from grm_server.pipeline.permit import Permit
from grm_server.pipeline.types import ScoreRequest


class Prompter:
    """Tokenising a prompt takes milliseconds, and a request may have hundreds: others get their turn between two."""

    def __init__(self, request: ScoreRequest, template: JudgeTemplate, permit: Permit) -> None:
        self._request = request
        self._template = template
        self._permit = permit
        self.task = defused(request.task)
        self.seed = request_seed(request.seed, request.task)
        self._prepared: dict[Order, Prepared] = {}

    async def prepare(self, orders: Iterable[Order]) -> Mapping[Order, Prepared]:
        """The prompts of these orders. Raises PromptTooLong."""
        wanted = list(dict.fromkeys(orders))
        for order in wanted:
            if order not in self._prepared:
                script = write_script(
                    self._template, self.task, order, self._request.max_critique_tokens, self._request.reading
                )
                self._prepared[order] = self._permit.prepare(script)
                await asyncio.sleep(0)
        return {order: self._prepared[order] for order in wanted}

    async def fitting_course(self) -> tuple[Course, int]:
        """The plan in whole lists if they fit `list_size` and the model's context, else in blocks that do; and the size
        of list that fits.

        Raises PromptTooLong before anything is generated; Of blocks only the longest that could come is tried: the
        responses with the most tokens, together.
        """
        request, n = self._request, len(self._request.task.responses)
        strict = isinstance(request.stop, Strict)
        size = min(n, request.list_size)
        longest: list[int] = []
        while True:
            planned = course(range(n), request.k, self.seed, size, exchangeable=strict)
            if size < n and not longest:
                longest = await self._longest_first()
            try:
                await self.prepare([tuple(longest[:size])] if size < n else [draw.order for draw in planned.draws])
                return planned, size
            except PromptTooLong as error:
                if size <= 2 or strict:
                    error.oversized = await self._oversized(n if strict else 2)
                    raise
                size = max(2, min(size - 1, size * error.details["limit"] // error.details["needed_tokens"]))

    async def _oversized(self, size: int) -> list[int]:
        """The responses without which lists of `size` of the others fit, the longest ones; all, if none fits alone."""
        fitting = await self._longest_first()
        while fitting and not await self._fits(tuple(fitting[:size])):
            fitting.pop(0)
        return sorted(set(range(len(self._request.task.responses))).difference(fitting))

    async def _fits(self, order: Order) -> bool:
        try:
            await self.prepare([order])
        except PromptTooLong:
            return False
        return True

    async def _longest_first(self) -> list[int]:
        """Response indices by their tokens."""
        tokens = [await self._tokens((i,)) for i in range(len(self._request.task.responses))]
        return sorted(range(len(tokens)), key=lambda i: -tokens[i])

    async def _tokens(self, order: Order) -> int:
        """Of its prompt, or so many that it does not fit."""
        try:
            return len((await self.prepare([order]))[order].token_ids[0])
        except PromptTooLong as error:
            return int(error.details["prompt_tokens"])
