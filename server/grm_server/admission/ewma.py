"""What is usual: a moving mean and how far from it things are. Pure."""

from __future__ import annotations


class Ewma:
    """As TCP tells a late answer from a lost one (Jacobson 1988)."""

    def __init__(self, weight: float = 0.05) -> None:
        """weight: of the newest, once there have been as many as it says."""
        self._weight = weight
        self._count = 0
        self.mean: float | None = None
        """None before there was one."""
        self._deviation = 0.0

    def observe(self, value: float) -> None:
        self._count += 1
        weight = max(self._weight, 1 / self._count)
        if self.mean is None:
            self.mean = value
        error = value - self.mean
        self.mean += weight * error
        self._deviation += weight * (abs(error) - self._deviation)

    @property
    def high(self) -> float:
        """Seldom more; 0 before there was one."""
        return 0.0 if self.mean is None else self.mean + 2 * self._deviation

    @property
    def low(self) -> float:
        """Seldom less."""
        return 0.0 if self.mean is None else max(0.0, self.mean - 2 * self._deviation)
