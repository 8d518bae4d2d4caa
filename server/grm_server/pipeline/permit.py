"""Leave to generate: the pipeline is given a permit and no engine, so nothing is written for a request without one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from grm_server.engine.protocol import Outcome, SchedulingClass, TokenizedScript
from grm_server.grm.types import Script


class Permit(Protocol):
    """One request's. Whoever gives it counts what goes through it."""

    @property
    def arrived_s(self) -> float:
        """When the request came, on `time.monotonic`. Its deadline counts from then: waiting for a permit is in it."""

    @property
    def left_s(self) -> float:
        """Seconds until its samples must be in, for an answer by its deadline."""

    @property
    def running(self) -> int:
        """As `JudgeEngine.running`."""

    @property
    def contended(self) -> bool:
        """Whether other requests wait for a permit: what may turn out not to be needed is then not begun."""

    def prepare(self, script: Script) -> TokenizedScript:
        """As `JudgeEngine.prepare`."""

    def sample(
        self, prepared: TokenizedScript, seeds: Sequence[int], temperature: float, scheduling: SchedulingClass
    ) -> AsyncGenerator[tuple[int, Outcome]]:
        """As `JudgeEngine.sample`. Audits hold nobody back and go on after the answer."""

    def rating(self) -> AbstractContextManager[None]:
        """While a meta RM rates a sample: a slow one must not be buried under what a fast engine writes."""
