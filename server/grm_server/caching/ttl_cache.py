"""TTL cache: drops items that are too old, and the oldest when it holds too much."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """At most `max_weight` in total, each item for at most `ttl_s` seconds."""

    def __init__(self, max_weight: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_weight = max_weight
        self._ttl_s = ttl_s
        self._clock = clock
        self._weight = 0
        self._items: dict[K, tuple[float, int, V]] = {}
        """Oldest first: put_s, weight, value."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Store a value as the newest. One that is heavier than `max_weight` just empties the cache."""
        if key in self._items:
            self._drop(key)
        self._items[key] = (self._clock(), weight, value)
        self._weight += weight
        while self._weight > self._max_weight:
            self._drop(next(iter(self._items)))
        self._expire()

    def get(self, key: K) -> V | None:
        self._expire()
        item = self._items.get(key)
        return None if item is None else item[2]

    def _expire(self) -> None:
        before_s = self._clock() - self._ttl_s
        while self._items and self._items[key := next(iter(self._items))][0] < before_s:
            self._drop(key)

    def _drop(self, key: K) -> None:
        self._weight -= self._items.pop(key)[1]
