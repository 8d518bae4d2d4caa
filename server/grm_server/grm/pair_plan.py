"""Design the pairs of a judge that compares exactly two responses. `plan` labels and seeds them.

The design is a sequence of rings, each walked in both directions, so both orders of a pair are one unit. A ring of n
pairs connects all n responses, shows each of them in two pairs, and once at each position in each direction. Later
rings prefer pairs that have not met: all pairs meet about equally often (a round robin).
"""

from __future__ import annotations

from functools import lru_cache

from grm_server.grm.types import Order

RING_ROUNDS = 4
"""Rounds of a ring in both directions: each response is shown in four samples."""


def zigzag(n: int) -> tuple[int, ...]:
    """0, 1, n-1, 2, n-2, ...: all steps between neighbours differ, so its n shifts repeat no ordered pair of
    neighbours."""
    return (0, *((p + 1) // 2 if p % 2 else n - p // 2 for p in range(1, n)))


def pair_samples(n: int, rounds: int) -> int:
    """Samples in the first `rounds` rounds of n responses; each round shows each response about once."""
    return -(-n * rounds // 2)


@lru_cache(maxsize=64)
def pair_design(n: int, rounds: int) -> tuple[Order, ...]:
    """The ordered pairs of all rounds, for responses 0..n-1, n >= 2. The first r rounds are `pair_samples(n, r)` pairs
    and show each response at least r times.

    Ring t is the response n-1, then the others in the zigzag shifted by t (Lucas and Walecki 1892). For odd n these
    rings share no pair until all pairs have met. For even n the pairs of ring t are the rounds 2t and 2t+1 of the
    circle method for tournaments. So after any number of rings, the meetings of two pairs differ by at most 1.
    """
    orders: list[Order] = []
    for t in range(-(-rounds // RING_ROUNDS)):
        ring = (n - 1, *((i + t) % (n - 1) for i in zigzag(n - 1)))
        pairs = [(ring[p], ring[(p + 1) % n]) for p in range(n)]
        # Every second pair shows every response once; for odd n, one of them twice.
        pairs = pairs[::2] + pairs[1::2]
        orders += [*pairs, *((b, a) for a, b in pairs)]
    return tuple(orders[: pair_samples(n, rounds)])
