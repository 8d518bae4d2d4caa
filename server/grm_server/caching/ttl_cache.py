"""A map that forgets: what is too old, and the oldest where it holds too much."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """At most `most` by weight, each for at most `ttl_s` seconds."""

    def __init__(self, most: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._ttl_s = ttl_s
        self._clock = clock
        self._weight = 0
        self._items: dict[K, tuple[float, int, V]] = {}
        """Oldest first: put_s, weight, value."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, key: K, value: V, weight: int = 1) -> None:
        """Keep a value, as the newest. One that weighs more than all may weigh is not kept."""
        if key in self._items:
            self._forget(key)
        self._items[key] = (self._clock(), weight, value)
        self._weight += weight
        while self._weight > self._most:
            self._forget(next(iter(self._items)))
        self._expire()

    def get(self, key: K) -> V | None:
        self._expire()
        item = self._items.get(key)
        return None if item is None else item[2]

    def _expire(self) -> None:
        before_s = self._clock() - self._ttl_s
        while self._items and self._items[key := next(iter(self._items))][0] < before_s:
            self._forget(key)

    def _forget(self, key: K) -> None:
        self._weight -= self._items.pop(key)[1]
