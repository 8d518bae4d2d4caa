"""Which samples to draw: the order of responses and the seed of each, decided before anything is generated.

Orders are designed, not shuffled. A Williams design (Williams 1949) shows every response equally often at every
position and equally often right after every other one, which removes the position effect and the contrast with the
neighbour from the mean instead of averaging them out, and it needs only n distinct prompts (2n for odd n), so that the
engine prefills n prompts and not k.
"""

from __future__ import annotations

import hashlib
import random

from grm_server.grm.types import Draw, Order


def derive_seed(seed: int, *path: int) -> int:
    """A seed in 0..2**53-1 for the given place below `seed`.

    A hash, not `seed + j`: neighbouring request seeds must not share samples.
    """
    text = "/".join(map(str, (seed, *path))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 11


def latin_squares(n: int) -> tuple[tuple[Order, ...], ...]:
    """The Williams design for n responses as Latin squares of n orders: one square for even n, two for odd n.

    Within a square each response stands once at each position. Over the whole design each response also follows
    each other one equally often (once for even n, twice for odd n).
    """
    if n == 1:
        return (((0,),),)
    # 0, 1, n-1, 2, n-2, ...: all steps between neighbours differ, so the n shifts of it repeat no pair of neighbours.
    base = [0] + [(p + 1) // 2 if p % 2 else n - p // 2 for p in range(1, n)]
    square = tuple(tuple((i + shift) % n for i in base) for shift in range(n))
    if n % 2 == 0:
        return (square,)
    return square, tuple(order[::-1] for order in square)


def plan(n: int, k: int, seed: int) -> tuple[Draw, ...]:
    """The k draws of a request with n responses, in launch order.

    Labels are randomised once per request, so that no response is always first; the same orders are used throughout.
    Whole designs come first, then whole Latin squares, then a random part of one: every launch-order prefix is as
    balanced as its length allows.

    Returns k draws; the number of distinct orders among them is at most n (2n for odd n).
    """
    if n < 1 or k < 1:
        raise ValueError(f"a plan needs n >= 1 and k >= 1, got n={n}, k={k}")
    rng = random.Random(derive_seed(seed))
    labels = list(range(n))
    rng.shuffle(labels)
    squares = [[tuple(labels[i] for i in order) for order in square] for square in latin_squares(n)]
    orders: list[Order] = []
    while len(orders) < k:
        for square in rng.sample(squares, len(squares)):
            orders += rng.sample(square, len(square))
    return tuple(Draw(j, orders[j], derive_seed(seed, j)) for j in range(k))
