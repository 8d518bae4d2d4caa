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


def test_an_owner_that_fills_the_cache_evicts_only_its_own() -> None:
    cache: TTLCache[str, int] = TTLCache(10, 60)
    cache.put("b", 1, weight=4, owner="B")
    for number in range(100):
        cache.put(f"a-{number}", number, weight=2, owner="A")
    assert cache.get("b") == 1
    assert [cache.get(f"a-{number}") for number in (96, 97, 98, 99)] == [None, 97, 98, 99]
    # The heaviest item of all empties only its owner's share.
    cache.put("huge", 1, weight=1000, owner="A")
    assert (cache.get("b"), cache.get("huge"), len(cache)) == (1, None, 1)


def test_an_owner_that_holds_more_than_its_share_makes_room_for_the_others() -> None:
    cache: TTLCache[str, int] = TTLCache(10, 60)
    for number in range(10):
        cache.put(f"a-{number}", number, owner="A")
    for number in range(10):
        cache.put(f"b-{number}", number, owner="B")
    assert [sum(cache.get(f"{name}-{number}") is not None for number in range(10)) for name in "ab"] == [5, 5]
    assert cache.get("a-9") == cache.get("b-9") == 9, "the oldest of each went first"


def test_a_key_that_changes_its_owner_counts_for_the_new_one() -> None:
    clock = Clock()
    cache: TTLCache[str, int] = TTLCache(2, 60, clock)
    cache.put("x", 1, owner="A")
    cache.put("x", 2, owner="B")
    cache.put("y", 3, owner="A")
    cache.put("z", 4, owner="B")
    assert (cache.get("x"), cache.get("y"), cache.get("z")) == (None, 3, 4)
    clock.now_s = 61
    assert (cache.get("y"), len(cache)) == (None, 0)
