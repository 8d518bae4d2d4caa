"""What a TTL cache drops, and when."""

from grm_server.caching.ttl_cache import TTLCache


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_oldest_is_dropped_first() -> None:
    cache: TTLCache[str, int] = TTLCache(2, 60)
    cache.put("a", 1)
    cache.put("b", 2)
    cache.put("a", 3)
    cache.put("c", 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c"), len(cache)) == (3, None, 4, 2)


def test_old_items_expire_even_with_room_left() -> None:
    clock = Clock()
    cache: TTLCache[str, int] = TTLCache(100, 60, clock)
    cache.put("a", 1)
    clock.now_s = 59
    cache.put("b", 2)
    assert cache.get("a") == 1
    clock.now_s = 61
    assert (cache.get("a"), cache.get("b"), len(cache)) == (None, 2, 1)


def test_the_weight_is_limited() -> None:
    cache: TTLCache[str, int] = TTLCache(10, 60)
    cache.put("a", 1, weight=6)
    cache.put("b", 2, weight=4)
    cache.put("c", 3, weight=5)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (None, 2, 3)
    cache.put("d", 4, weight=11)
    assert len(cache) == 0
