"""How fast samples are finished while there is always another one to begin. Pure: the caller brings the clock."""

from __future__ import annotations

KEPT_TURNS = 8
"""Of the engine: what was seen 5.5 turns ago counts half."""


class Throughput:
    """Counted only while requests wait. An engine that has little to do finishes little, which says nothing of what it
    could do; and it is slow no more than it is fast while it is idle.

    It forgets by samples finished and not by seconds, so that it sees as many turns of an engine whose samples take a
    minute as of one whose samples take a second.
    """

    def __init__(self, turn: int) -> None:
        """turn: samples that are in the engine at once. Those of its first turn end together, so that nothing is said
        before as many have ended."""
        self._turn = turn
        self._keep = 1 - 1 / (KEPT_TURNS * turn)
        self._finished = self._busy_s = 0.0
        self._seen = 0
        self._since_s: float | None = None
        """Until when busy time is counted; None while nobody waits."""

    def busy(self, now_s: float) -> None:
        """From now on requests wait."""
        if self._since_s is None:
            self._since_s = now_s

    def idle(self, now_s: float) -> None:
        """From now on none waits."""
        self._count(now_s)
        self._since_s = None

    def finished(self, now_s: float) -> None:
        """A sample was finished."""
        if self._since_s is None:
            return
        self._finished, self._busy_s = self._finished * self._keep + 1, self._busy_s * self._keep
        self._seen += 1
        self._count(now_s)

    def per_s(self, now_s: float) -> float | None:
        """Samples per second; None before there is anything to say. It falls while an engine hangs."""
        self._count(now_s)
        return self._finished / self._busy_s if self._seen >= self._turn and self._busy_s else None

    def _count(self, now_s: float) -> None:
        if self._since_s is not None:
            self._busy_s += now_s - self._since_s
            self._since_s = now_s
