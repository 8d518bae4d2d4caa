"""When to restart a failed engine, with exponential backoff, and when to give up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """A failure is a start that failed or an engine that died. An engine that ran for `settled_s` resets the count."""

    restarts: int
    """Consecutive failures that are each followed by a restart; 0: never restart."""
    settled_s: float

    def failures(self, before: int, lived_s: float) -> int:
        """Consecutive failures, including this one of an engine that was ready for `lived_s` seconds."""
        return 1 if lived_s >= self.settled_s else before + 1

    def pause_s(self, failures: int) -> float | None:
        """Seconds until the next start: 0, 1, 2, 4, ..., 30; None: give up."""
        if failures > self.restarts:
            return None
        return 0.0 if failures <= 1 else min(2.0 ** (failures - 2), LONGEST_PAUSE_S)
