"""Where tokens come from, as the pipeline sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

from grm_server.engine.stats import EngineStats
from grm_server.errors import GenerationFailed
from grm_server.grm.types import Sample, Script

Outcome = Sample | GenerationFailed
"""One sample's failure is data; what fails every sample is raised."""


class SchedulingClass(IntEnum):
    """Which samples go first when the engine is full."""

    CONTINUATION = 0
    """Of a request that has waited its turn once: a later wave."""
    NEW = 1
    SPECULATIVE = 2
    """Of a wave that may turn out not to be needed."""
    AUDIT = 3
    """Nobody waits for it."""


@dataclass(frozen=True, slots=True)
class TokenizedScript:
    """A script in the model's own tokens, known to fit its context."""

    script: Script
    token_ids: tuple[tuple[int, ...], ...]
    """One for each segment: what is put before its text. The first begins with the whole prompt."""


class JudgeEngine(Protocol):
    """A judge that writes samples."""

    @property
    def model(self) -> str:
        """Its name in answers."""

    @property
    def max_model_len(self) -> int:
        """Tokens of prompt and completion together."""

    @property
    def running(self) -> int:
        """Samples being written or waiting for it, of all requests."""

    @property
    def pulse(self) -> EngineStats:
        """What it last said of itself."""

    def raise_if_unavailable(self) -> None:
        """Raise EngineDead if it would serve no new request."""

    def raise_if_not_ready(self) -> None:
        """Raise EngineDead if it writes nothing now, be it for a moment."""

    def prepare(self, script: Script) -> TokenizedScript:
        """Tokenise. Raises PromptTooLong; nothing has been generated then."""

    def sample(
        self, prepared: TokenizedScript, seeds: Sequence[int], temperature: float, scheduling: SchedulingClass
    ) -> AsyncGenerator[tuple[int, Outcome]]:
        """Write one sample for each seed, all at once; yield (place in `seeds`, sample) as each is finished.

        Closing the iterator, or cancelling its consumer, aborts what is still being written. Raises EngineDead.
        """

    async def close(self) -> None:
        """Free the engine, also one that is hung; what it still writes raises EngineDead. Idempotent."""


@dataclass(frozen=True, slots=True)
class Rating:
    """What a meta RM says of one sample."""

    meta_reward: float
    """Probability that its scores are right, 0..1."""
    prompt_tokens: int = 0
    """Of the whole exchange: prompt and the judge's turn."""
    cached_tokens: int = 0
    """Those found in the prefix cache."""


class MetaRM(Protocol):
    """Rates samples."""

    @property
    def model(self) -> str:
        """Its name in answers."""

    def raise_if_unavailable(self) -> None:
        """Raise MetaRMFailed if it is known to be gone."""

    def prepare(self, prompt: str) -> tuple[int, ...]:
        """Tokenise the user turn, which the samples of one order share. Raises PromptTooLong."""

    async def rate(self, prompt: tuple[int, ...], answer: str) -> Rating:
        """How probable it is that the scores at the end of the judge's turn are right.

        Cancelling it aborts it. Raises PromptTooLong and MetaRMFailed.
        """

    async def close(self) -> None:
        """Free it. Idempotent."""


class RatingEngine(MetaRM, Protocol):
    """A meta RM in an engine of its own, which may hang."""

    @property
    def running(self) -> int:
        """Samples that it is asked about now."""

    @property
    def rated(self) -> int:
        """Samples that it has rated. Where this stands still while it is asked, it is hung."""


async def as_finished(work: Sequence[Coroutine[Any, Any, Outcome]]) -> AsyncGenerator[tuple[int, Outcome]]:
    """Run all of `work` at once and yield (place, result) as each ends; cancel the rest if the consumer leaves."""
    places = {asyncio.ensure_future(coroutine): place for place, coroutine in enumerate(work)}
    pending = set(places)
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield places[task], task.result()
    finally:
        for task in places:
            task.cancel()
        # Wait until the engine has been told: a cancelled sample must not decode on behind our back.
        if unfinished := [task for task in places if not task.done()]:
            await asyncio.wait(unfinished)
        # Retrieve what the cancelled ones died of, or asyncio logs it as lost.
        for task in places:
            if not task.cancelled():
                task.exception()
