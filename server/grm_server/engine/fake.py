"""A sampler and a meta RM without a model, for tests and measurements of what surrounds the engine.

Deterministic: the text and scores of a sample follow from its prompt and seed by hash. Scripted: a test may say what
the next samples will be. It records every call.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress

from grm_server.engine.protocol import Outcome, Rating, SchedulingClass, TokenizedScript, as_finished
from grm_server.engine.stats import EngineStats
from grm_server.errors import EngineDead, MetaRMFailed, PromptTooLong
from grm_server.grm.types import Sample, Script


class FakeEngine:
    """See the module. Tokens are words."""

    model = "fake"

    def __init__(
        self,
        outcomes: Iterable[Outcome | str] = (),
        *,
        delay_s: float = 0.0,
        max_model_len: int = 8192,
        max_running: int | None = None,
        recording: bool = True,
    ) -> None:
        """`outcomes`: what the next samples will be, in the order they start; a string stands for a score tail.
        `max_running`: samples that it writes at once; the others wait, the most urgent first. None: any number.
        `recording`: of calls, for tests; a server that runs on would never forget them.
        """
        self.outcomes = deque(outcomes)
        self.delay_s = delay_s
        self.max_model_len = max_model_len
        self._recording = recording
        self._slots = None if max_running is None else _Slots(max_running)
        self.dead: EngineDead | None = None
        self.calls: list[tuple[Script, tuple[int, ...], float]] = []
        """(script, seeds, temperature) of every call of `sample`."""
        self.schedulings: list[SchedulingClass] = []
        """Of every sample asked for."""
        self.started = self.finished = self.aborted = 0
        self._closed = asyncio.Event()

    @property
    def running(self) -> int:
        return self.started - self.finished - self.aborted

    @property
    def stats(self) -> EngineStats:
        """A sample is one step."""
        return EngineStats(steps=self.finished, running=self.running)

    def raise_if_unavailable(self) -> None:
        if self.dead:
            raise self.dead

    def raise_if_not_ready(self) -> None:
        self.raise_if_unavailable()

    def prepare(self, script: Script) -> TokenizedScript:
        words = len(script.prompt.split())
        needed = words + sum(segment.max_tokens for segment in script.segments)
        if needed > self.max_model_len:
            raise PromptTooLong(
                f"the prompt has {words} tokens; with the sample's budget that is {needed}, over {self.max_model_len}",
                details={"prompt_tokens": words, "needed_tokens": needed, "limit": self.max_model_len},
            )
        return TokenizedScript(script, ((0,) * words, *((0,) for _ in script.segments[1:])))

    def sample(
        self, prepared: TokenizedScript, seeds: Sequence[int], temperature: float, scheduling: SchedulingClass
    ) -> AsyncGenerator[tuple[int, Outcome]]:
        self.raise_if_unavailable()
        if self._recording:
            self.calls.append((prepared.script, tuple(seeds), temperature))
            self.schedulings += [scheduling] * len(seeds)
        return as_finished([self._write(prepared, seed, scheduling) for seed in seeds])

    async def _write(self, prepared: TokenizedScript, seed: int, scheduling: SchedulingClass) -> Outcome:
        self.started += 1
        scripted = self.outcomes.popleft() if self.outcomes else None
        try:
            async with nullcontext() if self._slots is None else self._slots.slot(scheduling):
                started_s = time.monotonic()
                await _pass(self.delay_s, self._closed)
            self.raise_if_unavailable()
        except BaseException:
            self.aborted += 1
            raise
        self.finished += 1
        if scripted is not None and not isinstance(scripted, str):
            return scripted
        digest = hashlib.blake2b(f"{seed}\n{prepared.script.prompt}".encode(errors="replace")).digest()
        n = prepared.script.prompt.count("[The Begin of Response ")
        tail = ", ".join(str(1 + digest[p] % 10) for p in range(n)) + "}"
        words: dict[str, str] = {"principles": " Correctness (weight 1).", "critique": f" Reading {digest.hex()[:8]}."}
        texts: dict[str, str] = {s.name: words.get(s.name, scripted or tail) for s in prepared.script.segments}
        return Sample(
            texts=texts,
            prompt_tokens=len(prepared.token_ids[0]),
            completion_tokens=sum(len(text.split()) for text in texts.values()),
            started_s=started_s,
            finished_s=time.monotonic(),
        )

    async def close(self) -> None:
        self.dead = self.dead or EngineDead("the engine was closed")
        self._closed.set()


async def _pass(seconds: float, closed: asyncio.Event) -> None:
    """Wait so long, or until `closed`."""
    if not seconds:
        return await asyncio.sleep(0)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await closed.wait()


class _Slots:
    """So many at once, the most urgent of those that wait first."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: list[tuple[SchedulingClass, int, asyncio.Future[None]]] = []
        self._came = 0

    @asynccontextmanager
    async def slot(self, scheduling: SchedulingClass) -> AsyncIterator[None]:
        turn = asyncio.get_running_loop().create_future()
        self._came += 1
        heapq.heappush(self._waiting, (scheduling, self._came, turn))
        self._next()
        try:
            await turn
            yield
        finally:
            if turn.done() and not turn.cancelled():
                self._free += 1
                self._next()

    def _next(self) -> None:
        while self._free and self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                self._free -= 1


class FakeMetaRM:
    """Rates by a hash of the judge's turn, or as it is told. It counts what it is asked."""

    model = "fake-meta"

    def __init__(self, ratings: Iterable[float | MetaRMFailed] = (), *, delay_s: float = 0.0) -> None:
        """`ratings`: what it says of the next samples, in the order in which they come."""
        self.ratings = deque(ratings)
        self.delay_s = delay_s
        self.dead: MetaRMFailed | None = None
        self.answers: list[str] = []
        """The judge's turn of every sample it was asked about."""
        self.running = 0
        self.rated = 0
        self._closed = asyncio.Event()

    def raise_if_unavailable(self) -> None:
        if self.dead:
            raise self.dead

    def prepare(self, prompt: str) -> tuple[int, ...]:
        return (0,) * len(prompt.split())

    async def rate(self, prompt: tuple[int, ...], answer: str) -> Rating:
        self.raise_if_unavailable()
        self.answers.append(answer)
        told = self.ratings.popleft() if self.ratings else None
        self.running += 1
        try:
            await _pass(self.delay_s, self._closed)
        finally:
            self.running -= 1
        self.raise_if_unavailable()
        if isinstance(told, MetaRMFailed):
            raise told
        self.rated += 1
        by_hash = int.from_bytes(hashlib.blake2b(answer.encode(errors="replace"), digest_size=4).digest()) / 2**32
        return Rating(by_hash if told is None else told, len(prompt) + len(answer.split()), len(prompt))

    async def close(self) -> None:
        self.dead = self.dead or MetaRMFailed("the meta RM was closed")
        self._closed.set()
