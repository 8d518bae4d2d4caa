"""Keeps an engine alive: detects when it dies or hangs, frees it and starts another.

Used for the judge's engine and for the meta RM's. `supervised_engines` is what requests see.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

from grm_server.errors import GRMError
from grm_server.supervision.restart_policy import RestartPolicy
from grm_server.supervision.stall_detector import StallDetector
from grm_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

POLL_S = 0.25
"""Between two checks of an engine."""
PATIENCE_S = 5.0
"""New requests wait for an engine unless the pause before its start is longer."""
_START_TIMEOUT_FACTOR = 10.0
"""A restart counts as hung after this many times the first start's duration, or a minute if that is longer."""
_MIN_START_TIMEOUT_S = 60.0


class Restartable(Protocol):
    """An engine that can be replaced by another."""

    def raise_if_unavailable(self) -> None:
        """Raise a GRMError if it is dead."""

    async def close(self) -> None:
        """Free it, even if it hangs. What it still works on fails. Idempotent."""


E = TypeVar("E", bound=Restartable)


class Supervisor(Generic[E]):
    """`begin` starts the first engine and raises what its start raises. From then on, `engine` is the newest one."""

    engine: E

    def __init__(
        self,
        name: str,
        start: Callable[[], Awaitable[E]],
        policy: RestartPolicy,
        metrics: Metrics,
        *,
        progress: Callable[[E], tuple[bool, int]] | None = None,
        stall_s: float = float("inf"),
    ) -> None:
        """name: for messages and metrics.
        start: returns a new engine that is ready.
        progress: whether an engine has work, and the number of its steps. With work and without a step for `stall_s`
        seconds, it counts as hung and is treated as dead.
        """
        self.down: str | None = None
        """Why there is no engine right now; None while there is one."""
        self.hopeless = False
        """There will be none soon, or never again."""
        self._name = name
        self._start = start
        self._policy = policy
        self._metrics = metrics.engines
        self._progress = progress
        self._stall_s = stall_s
        self._start_timeout_s = _MIN_START_TIMEOUT_S
        self._ready_s = 0.0
        self._failures = 0
        self._ended = False
        """There will be no further engine."""
        self._reported_cause: str | None = None
        """Cause of a loss that was reported and not handled yet."""
        self._loss_reported = asyncio.Event()
        self._settled = asyncio.Event()
        """Set while there is nothing to wait for: an engine is up, or there will be none."""
        self._watch_task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        began_s = time.monotonic()
        self.engine = await self._start()
        self._ready_s = time.monotonic()
        self._start_timeout_s = max(_MIN_START_TIMEOUT_S, _START_TIMEOUT_FACTOR * (self._ready_s - began_s))
        self._settled.set()
        self._watch_task = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Free the engine. Callers that wait for the next one get None. Idempotent."""
        self._end(self.down or f"{self._name} was closed")
        if self._watch_task is not None:
            self._watch_task.cancel()
            await asyncio.wait([self._watch_task])
        await self.engine.close()

    def lost(self, engine: E, cause: str) -> None:
        """Report that work failed because `engine` is dead. Ignored if it was already replaced."""
        if engine is self.engine and self.down is None:
            self._reported_cause = cause
            self._take_down(cause)
            self._loss_reported.set()

    async def up(self) -> E | None:
        """Wait for the engine; None when there will be none. Safe to cancel."""
        await self._settled.wait()
        return None if self._ended else self.engine

    async def _watch(self) -> None:
        while not self._ended:
            cause = await self._wait_for_loss()
            lived_s = time.monotonic() - self._ready_s
            self._failures = self._policy.failures(self._failures, lived_s)
            logger.error("lost %s after %.0f s: %s", self._name, lived_s, cause)
            self._take_down(cause)
            await self._restart(cause)

    async def _wait_for_loss(self) -> str:
        """Wait until the engine is dead or hung; returns the cause."""
        stall = StallDetector()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._loss_reported.wait()
            if self._reported_cause is not None:
                cause, self._reported_cause = self._reported_cause, None
                self._loss_reported.clear()
                return cause
            try:
                self.engine.raise_if_unavailable()
            except GRMError as error:
                return error.message
            if self._progress is not None:
                busy, steps = self._progress(self.engine)
                stall = stall.after(POLL_S, busy=busy, steps=steps)
                if stall.stalled_s >= self._stall_s:
                    return f"{self._name} hung: no step in {self._stall_s:g} s"

    async def _restart(self, cause: str) -> None:
        """Start engines until one is up or the policy gives up."""
        began_s = time.monotonic()
        await self._free()
        while (pause_s := self._policy.pause_s(self._failures)) is not None:
            self.hopeless = pause_s > PATIENCE_S
            self.down = f"{cause}; restart {self._failures} of at most {self._policy.restarts} is under way"
            await asyncio.sleep(pause_s)
            try:
                async with asyncio.timeout(self._start_timeout_s):
                    self.engine = await self._start()
            except TimeoutError:
                cause = f"{self._name} did not start within {self._start_timeout_s:.0f} s"
            except Exception as error:  # whatever a model's loading raises
                cause = f"{self._name} did not start: {type(error).__name__}: {error}"
            else:
                self._bring_up(time.monotonic() - began_s)
                return
            self._metrics.restarts.labels(self._name, "failed").inc()
            self._failures += 1
            logger.error("%s", cause)
        self._metrics.restarts.labels(self._name, "given_up").inc()
        self._end(f"{cause}; gave up after {self._failures} failures in a row: restart the server")
        logger.error("%s", self.down)

    async def _free(self) -> None:
        try:
            await self.engine.close()
        except Exception as error:  # parts of it may be gone; start the next engine anyway
            logger.warning("could not free all of %s: %s", self._name, type(error).__name__)

    def _take_down(self, cause: str) -> None:
        self.down = cause
        self._settled.clear()

    def _bring_up(self, restart_s: float) -> None:
        self._ready_s = time.monotonic()
        self.down, self.hopeless = None, False
        self._settled.set()
        self._metrics.restarts.labels(self._name, "restarted").inc()
        self._metrics.restart_s.labels(self._name).observe(restart_s)
        logger.warning("%s is back after %.1f s", self._name, restart_s)

    def _end(self, reason: str) -> None:
        self.down, self.hopeless, self._ended = reason, True, True
        self._settled.set()
