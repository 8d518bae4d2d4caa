"""Design the blocks of a list that does not fit one prompt. `plan` labels and seeds them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.optimize import linear_sum_assignment

from grm_server.grm.types import Floats, Ints, Order


@lru_cache(maxsize=64)
def block_design(n: int, count: int, rounds: int) -> tuple[tuple[Order, ...], ...]:
    """The `count` blocks of each round, for responses 0..n-1. All requests share it; each relabels its responses."""
    rng = np.random.default_rng(0)
    pair_counts = np.zeros((n, n))
    position_counts = np.zeros((n, -(-n // count)))
    design = []
    for _ in range(rounds):
        orders: list[Order] = []
        for block in _partition(pair_counts, count, rng):
            pair_counts[np.ix_(block, block)] += 1
            positions = np.arange(len(block))
            cost = position_counts[np.ix_(block, positions)] ** 2
            _, members = linear_sum_assignment(cost.T + rng.random((len(block),) * 2) / n)
            order = block[members]
            position_counts[order, positions] += 1
            orders.append(tuple(map(int, order)))
        design.append(tuple(orders))
    return tuple(design)


def _partition(pair_counts: Floats, count: int, rng: np.random.Generator) -> list[Ints]:
    """The members of each block: a random partition, improved by the best swap until no swap helps.

    pair_counts: (n, n), how often two responses shared a block so far.
    """
    n = len(pair_counts)
    block_of = rng.permutation(np.arange(n) % count)
    # The cost is the sum of the pair counts within blocks. A pair costs more each time it shares a block (a third time
    # costs twice as much as a second), so the counts stay even.
    while True:
        costs = pair_counts @ (block_of[:, None] == np.arange(count))  # (n, count), of each response in each block
        current = costs[np.arange(n), block_of]
        moved = costs[:, block_of] - current[:, None] + pair_counts.diagonal()[:, None] - pair_counts
        change = np.where(block_of[:, None] == block_of, 0.0, moved + moved.T)
        i, j = np.unravel_index(np.argmin(change), change.shape)
        if change[i, j] >= 0:
            return [rng.permutation(np.flatnonzero(block_of == b)) for b in range(count)]
        block_of[[i, j]] = block_of[[j, i]]
