"""A meta RM without a model, to test and measure everything around it: deterministic, scriptable, recording."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable, Iterable

from grm_server.engine.fake import pause
from grm_server.engine.protocol import Rating
from grm_server.errors import MetaRMFailed


class FakeMetaRM:
    """A meta RM that rates by a hash of the judge's turn, or as scripted."""

    model = "fake-meta"

    def __init__(
        self,
        ratings: Iterable[float | MetaRMFailed] = (),
        *,
        rating: Callable[[str], Rating] | None = None,
        delay_s: float = 0.0,
        recording: bool = True,
    ) -> None:
        """`ratings`: of the next samples, in the order in which they arrive; a failure is raised.
        `rating`: of a judge's turn, where `ratings` has none; None: by hash.
        `recording`: as for FakeEngine.
        """
        self.ratings = deque(ratings)
        self.delay_s = delay_s
        self.dead: MetaRMFailed | None = None
        self.prompts: list[str] = []
        """Every prompt that was tokenised."""
        self.answers: list[str] = []
        """The judge's turn of every sample to rate."""
        self.running = 0
        self.rated = 0
        self._rating = rating
        self._recording = recording
        self._closed = asyncio.Event()

    def raise_if_unavailable(self) -> None:
        if self.dead:
            raise self.dead

    def prepare(self, prompt: str) -> tuple[int, ...]:
        if self._recording:
            self.prompts.append(prompt)
        return (0,) * len(prompt.split())

    async def rate(self, prompt: tuple[int, ...], answer: str) -> Rating:
        self.raise_if_unavailable()
        if self._recording:
            self.answers.append(answer)
        scripted = self.ratings.popleft() if self.ratings else None
        self.running += 1
        try:
            await pause(self.delay_s, self._closed)
        finally:
            self.running -= 1
        self.raise_if_unavailable()
        if isinstance(scripted, MetaRMFailed):
            raise scripted
        self.rated += 1
        if scripted is None and self._rating is not None:
            return self._rating(answer)
        by_hash = int.from_bytes(hashlib.blake2b(answer.encode(errors="replace"), digest_size=4).digest()) / 2**32
        return Rating(by_hash if scripted is None else scripted, len(prompt) + len(answer.split()), len(prompt))

    async def close(self) -> None:
        self.dead = self.dead or MetaRMFailed("the meta RM was closed")
        self._closed.set()
