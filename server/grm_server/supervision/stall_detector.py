"""Detects a hung engine by its heartbeat: it has work and its step count stands still. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StallDetector:
    """For how long a busy engine has made no step. Idle polls do not reset it: clients of a hung engine time out, leave
    it idle for a while, and retry.

    Time is counted in polls and not by a clock. While this process is stopped or the machine sleeps, the engine gets no
    CPU time either.
    """

    steps: int = -1
    stalled_s: float = 0.0

    def after(self, poll_s: float, *, busy: bool, steps: int) -> StallDetector:
        """The state after one more poll, `poll_s` seconds after the last."""
        if steps != self.steps:
            return StallDetector(steps)
        return StallDetector(steps, self.stalled_s + poll_s) if busy else self
