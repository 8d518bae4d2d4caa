"""When an engine counts as hung, how long after a failure the next one is started, and when no more. Pure."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """A failure is a start that failed or an engine that died; they count while no engine in between has settled."""

    restarts: int
    """Failures in a row after each of which another engine is started; 0: none ever is."""
    settled_s: float
    """An engine that has lived for so long clears the count."""

    def failures(self, before: int, lived_s: float) -> int:
        """Failures in a row, this one included, by an engine that was ready for `lived_s` seconds."""
        return 1 if lived_s >= self.settled_s else before + 1

    def pause_s(self, failures: int) -> float | None:
        """Seconds until the next start: 0, 1, 2, 4, ..., 30. None: there is no next one."""
        if failures > self.restarts:
            return None
        return 0.0 if failures <= 1 else min(2.0 ** (failures - 2), LONGEST_PAUSE_S)


@dataclass(frozen=True, slots=True)
class StallDetector:
    """For how long an engine that had work to do has shown no step. It goes on where there was none in between: callers
    of a hung engine give up and leave it with nothing to do, and come again.

    Counted in looks at it, not on a clock: where this process was stopped itself, or its machine slept, the engine has
    had no time either.
    """

    steps: int = -1
    for_s: float = 0.0

    def after(self, look_s: float, *, busy: bool, steps: int) -> StallDetector:
        """One more look, `look_s` seconds after the last."""
        if steps != self.steps:
            return StallDetector(steps)
        return StallDetector(steps, self.for_s + look_s) if busy else self
