"""TTL cache that owners share: drops items that are too old, and when it holds too much, the oldest of the owner that
holds the most."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class _Item(Generic[V]):
    put_s: float
    weight: int
    owner: str
    value: V


class TTLCache(Generic[K, V]):
    """At most `max_weight` in total, each item for at most `ttl_s` seconds.

    An owner that holds no more than an equal share of `max_weight` loses nothing to the others."""

    def __init__(self, max_weight: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_weight = max_weight
        self._ttl_s = ttl_s
        self._clock = clock
        self._weight = 0
        self._items: dict[K, _Item[V]] = {}
        """Oldest first."""
        self._keys: dict[str, dict[K, None]] = {}
        """By owner, oldest first."""
        self._weights: dict[str, int] = {}
        """By owner."""

    def __len__(self) -> int:
        return len(self._items)

    def put(self, key: K, value: V, weight: int = 1, owner: str = "") -> None:
        """Store a value as the newest. One that is heavier than `max_weight` just empties its owner's share."""
        if key in self._items:
            self._drop(key)
        self._items[key] = _Item(self._clock(), weight, owner, value)
        self._keys.setdefault(owner, {})[key] = None
        self._weights[owner] = self._weights.get(owner, 0) + weight
        self._weight += weight
        while self._weight > self._max_weight:
            largest = max(self._weights, key=self._weights.__getitem__)
            self._drop(next(iter(self._keys[largest])))
        self._expire()

    def get(self, key: K) -> V | None:
        self._expire()
        item = self._items.get(key)
        return None if item is None else item.value

    def _expire(self) -> None:
        before_s = self._clock() - self._ttl_s
        while self._items and self._items[key := next(iter(self._items))].put_s < before_s:
            self._drop(key)

    def _drop(self, key: K) -> None:
        item = self._items.pop(key)
        self._weight -= item.weight
        self._weights[item.owner] -= item.weight
        del self._keys[item.owner][key]
        if not self._keys[item.owner]:
            del self._keys[item.owner], self._weights[item.owner]
