"""Keeps an engine alive: sees it die or hang, frees what is left of it and starts another.

Written once, for the judge's engine and the meta RM's. What requests see of it is in `supervised`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from grm_server.errors import GRMError
from grm_server.supervision.restart_policy import RestartPolicy, StallDetector
from grm_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

LOOK_S = 0.25
"""Between two looks at an engine about which nobody complains."""
PATIENCE_S = 5.0
"""New requests wait for an engine unless the pause before its start is longer."""
_SLOWER = 10.0
"""A restart may take so many times as long as the first start, and a minute in any case; then it has hung."""
_LEAST_LIMIT_S = 60.0


class Restartable(Protocol):
    """An engine that can be replaced by another."""

    def raise_if_unavailable(self) -> None:
        """Raise a GRMError if it is dead."""

    async def close(self) -> None:
        """Free it, also if it is hung. What it still does fails. Idempotent."""


E = TypeVar("E", bound=Restartable)


class Supervisor(Generic[E]):
    """`begin` starts the first engine and raises what that raises; `engine` is the newest from then on."""

    engine: E

    def __init__(
        self,
        name: str,
        start: Callable[[], Awaitable[E]],
        policy: RestartPolicy,
        metrics: Metrics,
        *,
        pulse: Callable[[E], tuple[bool, int]] | None = None,
        stall_s: float = float("inf"),
    ) -> None:
        """name: for messages and metrics.
        start: a new engine, ready to work.
        pulse: whether an engine has something to do, and the steps it has taken. With work and without a step for
        `stall_s` seconds it is hung, and treated as dead.
        """
        self.down: str | None = None
        """Why there is no engine at the moment; None while there is one."""
        self.hopeless = False
        """There will be none soon, or ever."""
        self._name = name
        self._start = start
        self._policy = policy
        self._metrics = metrics.engines
        self._pulse = pulse
        self._stall_s = stall_s
        self._limit_s = _LEAST_LIMIT_S
        self._ready_s = 0.0
        self._failures = 0
        self._ended = False
        """No further engine will come."""
        self._cause: str | None = None
        """What a complaint said that has not been dealt with."""
        self._complained = asyncio.Event()
        self._settled = asyncio.Event()
        """Set while nothing is to be waited for: an engine is there, or none will come."""
        self._watch: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        began_s = time.monotonic()
        self.engine = await self._start()
        self._ready_s = time.monotonic()
        self._limit_s = max(_LEAST_LIMIT_S, _SLOWER * (self._ready_s - began_s))
        self._settled.set()
        self._watch = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Free the engine; who waits for another gets none. Idempotent."""
        self._end(self.down or f"{self._name} was closed")
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.wait([self._watch])
        await self.engine.close()

    def lost(self, engine: E, cause: str) -> None:
        """A complaint: work failed because `engine` is dead. Of an engine that is replaced already it says nothing."""
        if engine is self.engine and self.down is None:
            self._cause = cause
            self._take_down(cause)
            self._complained.set()

    async def up(self) -> E | None:
        """The engine, once there is one; None when none will come. Cancelling it leaves no trace."""
        await self._settled.wait()
        return None if self._ended else self.engine

    async def _keep(self) -> None:
        while not self._ended:
            cause = await self._death()
            lived_s = time.monotonic() - self._ready_s
            self._failures = self._policy.failures(self._failures, lived_s)
            logger.error("%s is lost after %.0f s: %s", self._name, lived_s, cause)
            self._take_down(cause)
            await self._restart(cause)

    async def _death(self) -> str:
        """Wait until the engine is dead or hung; what is known of it."""
        silence = StallDetector()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._complained.wait()
            if self._cause is not None:
                cause, self._cause = self._cause, None
                self._complained.clear()
                return cause
            try:
                self.engine.raise_if_unavailable()
            except GRMError as error:
                return error.message
            if self._pulse is not None:
                busy, steps = self._pulse(self.engine)
                silence = silence.after(LOOK_S, busy=busy, steps=steps)
                if silence.for_s >= self._stall_s:
                    return f"{self._name} hung: no step in {self._stall_s:g} s"

    async def _restart(self, cause: str) -> None:
        """Start engines until one is there, or none is to be tried any more."""
        began_s = time.monotonic()
        await self._free()
        while (pause_s := self._policy.pause_s(self._failures)) is not None:
            self.hopeless = pause_s > PATIENCE_S
            self.down = f"{cause}; restart {self._failures} of {self._policy.restarts} at most is under way"
            await asyncio.sleep(pause_s)
            try:
                async with asyncio.timeout(self._limit_s):
                    self.engine = await self._start()
            except TimeoutError:
                cause = f"{self._name} did not start in {self._limit_s:.0f} s"
            except Exception as error:  # whatever a model's loading raises
                cause = f"{self._name} did not start: {type(error).__name__}: {error}"
            else:
                self._bring_up(time.monotonic() - began_s)
                return
            self._metrics.restarts.labels(self._name, "failed").inc()
            self._failures += 1
            logger.error("%s", cause)
        self._metrics.restarts.labels(self._name, "given_up").inc()
        self._end(f"{cause}; after {self._failures} failures in a row it is not started again: restart the server")
        logger.error("%s", self.down)

    async def _free(self) -> None:
        try:
            await self.engine.close()
        except Exception as error:  # half of it may be gone; the next engine is tried all the same
            logger.warning("%s was not freed whole: %s", self._name, type(error).__name__)

    def _take_down(self, cause: str) -> None:
        self.down = cause
        self._settled.clear()

    def _bring_up(self, took_s: float) -> None:
        self._ready_s = time.monotonic()
        self.down, self.hopeless = None, False
        self._settled.set()
        self._metrics.restarts.labels(self._name, "restarted").inc()
        self._metrics.restart_s.labels(self._name).observe(took_s)
        logger.warning("%s is back after %.1f s", self._name, took_s)

    def _end(self, reason: str) -> None:
        self.down, self.hopeless, self._ended = reason, True, True
        self._settled.set()
