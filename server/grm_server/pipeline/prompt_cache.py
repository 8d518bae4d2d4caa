"""The prompts of one request: which lists fit the model's context, and each prompt in the model's tokens."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from grm_server.engine.protocol import TokenizedScript
from grm_server.errors import PromptTooLong
from grm_server.grm.plan import SamplePlan, make_plan, request_seed
from grm_server.grm.prompts import JudgeTemplate, Sanitized, sanitized, write_script
from grm_server.grm.types import Order
from grm_server.pipeline.permit import Permit
from grm_server.pipeline.types import ScoreRequest


class PromptCache:
    """Tokenising a prompt takes milliseconds, and a request may have hundreds: others get their turn between two."""

    def __init__(self, request: ScoreRequest, template: JudgeTemplate, permit: Permit) -> None:
        self._request = request
        self._template = template
        self._permit = permit
        self.task = sanitized(request.task)
        self.seed = request_seed(request.seed, request.task)
        self._prepared: dict[Order, TokenizedScript | PromptTooLong] = {}
        self._longest: list[int] = []

    async def prepare(self, order: Order, *, past_deadline: bool = False) -> TokenizedScript:
        """The prompt of this order. Raises PromptTooLong; and TimeoutError when the request's deadline has come, unless
        it is `past_deadline`."""
        if order not in self._prepared:
            if not past_deadline and self._permit.left_s <= 0:
                raise TimeoutError
            self._prepared[order] = await self._tokenised(self.task, order)
        prepared = self._prepared[order]
        if isinstance(prepared, PromptTooLong):
            raise prepared
        return prepared

    def forget(self, order: Order) -> None:
        """It does not come again: the tokens of a long prompt take megabytes."""
        del self._prepared[order]

    async def fitting_course(self) -> tuple[SamplePlan, int]:
        """The plan in whole lists if they fit `list_size` and the model's context, else in blocks that do; and the size
        of list that fits.

        Raises PromptTooLong, and TimeoutError at the deadline, before anything is generated. Of blocks only the longest
        that could come is tried: the responses with the most tokens, together.
        """
        request, n = self._request, len(self._request.task.responses)
        strict = request.stop.exchangeable_orders
        size = min(n, request.list_size)
        while True:
            planned = make_plan(range(n), request.k, self.seed, size, exchangeable=strict)
            blocks = size < n
            orders = [tuple((await self._longest_first())[:size])] if blocks else [draw.order for draw in planned.draws]
            try:
                for order in orders:
                    await self.prepare(order)
                return planned, size
            except PromptTooLong as error:
                if size <= 2 or strict:
                    error.oversized = await self._oversized(n if strict else 2)
                    raise
                size = max(2, min(size - 1, size * error.details["limit"] // error.details["needed_tokens"]))

    async def _oversized(self, size: int) -> list[int]:
        """The responses without which lists of `size` of the others fit, the longest ones; all, if none fits alone."""
        longest = await self._longest_first()
        low, high = 0, len(longest)
        while low < high:
            middle = (low + high) // 2
            if await self._fits(tuple(longest[middle : middle + size])):
                high = middle
            else:
                low = middle + 1
        return sorted(longest[:low])

    async def _fits(self, order: Order) -> bool:
        try:
            await self.prepare(order)
        except PromptTooLong:
            return False
        return True

    async def _longest_first(self) -> list[int]:
        """Response indices by their tokens. Raises PromptTooLong where not even an empty response would fit."""
        if self._longest:
            return self._longest
        tokens: list[int] = []
        query_fits = False
        for i in range(len(self._request.task.responses)):
            try:
                tokens.append(len((await self.prepare((i,))).token_ids[0]))
            except PromptTooLong as error:
                if not query_fits:
                    await self._check_query()
                    query_fits = True
                tokens.append(error.details["prompt_tokens"])
            self.forget((i,))
        self._longest = sorted(range(len(tokens)), key=lambda i: -tokens[i])
        return self._longest

    async def _check_query(self) -> None:
        empty = await self._tokenised(sanitized(replace(self._request.task, responses=("",), hint=None)), (0,))
        if isinstance(empty, PromptTooLong):
            empty.oversized = range(len(self._request.task.responses))
            raise empty

    async def _tokenised(self, task: Sanitized, order: Order) -> TokenizedScript | PromptTooLong:
        """A refusal is an answer too: to find it again would take as long."""
        request = self._request
        script = write_script(self._template, task, order, request.max_critique_tokens, request.reading)
        await asyncio.sleep(0)
        try:
            return self._permit.prepare(script)
        except PromptTooLong as error:
            # Its frames hold the tokens.
            return error.with_traceback(None)
