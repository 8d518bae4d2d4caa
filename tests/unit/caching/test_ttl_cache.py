"""What is remembered, and for how long."""

from grm_server.caching.ttl_cache import TTLCache


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_the_oldest_goes_first() -> None:
    kept: TTLCache[str, int] = TTLCache(2, 60)
    kept.put("a", 1)
    kept.put("b", 2)
    kept.put("a", 3)
    kept.put("c", 4)
    assert (kept.get("a"), kept.get("b"), kept.get("c"), len(kept)) == (3, None, 4, 2)


def test_what_is_old_goes_though_there_is_room() -> None:
    clock = Clock()
    kept: TTLCache[str, int] = TTLCache(100, 60, clock)
    kept.put("a", 1)
    clock.now_s = 59
    kept.put("b", 2)
    assert kept.get("a") == 1
    clock.now_s = 61
    assert (kept.get("a"), kept.get("b"), len(kept)) == (None, 2, 1)


def test_weights() -> None:
    kept: TTLCache[str, int] = TTLCache(10, 60)
    kept.put("a", 1, weight=6)
    kept.put("b", 2, weight=4)
    kept.put("c", 3, weight=5)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (None, 2, 3)
    kept.put("d", 4, weight=11)
    assert len(kept) == 0
