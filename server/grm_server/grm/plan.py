"""Plan the draws of a request: the order and seed of each sample, before anything is generated. `prompts` comes next.

Orders are designed, not shuffled. A Williams design (Williams 1949) shows every response equally often at every
position and equally often right after every other response. This removes the position effect and the contrast with the
neighbour from the mean exactly, instead of averaging them out. It needs only n distinct orders (2n for odd n), so the
engine prefills n prompts, not k.

In one round, each active response is shown once: by one sample if all of them fit one list, else by one sample for each
block. A request has at most k rounds.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import linear_sum_assignment

from grm_server.grm.types import Draw, Floats, Ints, Order, Task


def derive_seed(seed: int, *path: int) -> int:
    """A seed in 0..2**53-1 derived from `seed` and the path, such as (j,) for sample j.

    We hash instead of adding: with `seed + j`, requests with neighbouring seeds would share samples.
    """
    text = "/".join(map(str, (seed, *path))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 11


def request_seed(seed: int, task: Task) -> int:
    """The seed of one request, derived from the client's seed and the content of the task.

    Many clients send the same seed with every request. Without the content, all their requests would share random
    numbers, and their errors would be correlated.
    """
    digest = hashlib.blake2b(digest_size=8)
    # Of the texts as they are: `repr` would take 40 ms to escape a million characters.
    turns = (text for message in task.query for text in (message.role, message.content))
    for text in (str(len(task.query)), *turns, task.reference, task.principles, *task.responses):
        content = b"" if text is None else text.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % (-1 if text is None else len(content)) + content)
    return derive_seed(seed, int.from_bytes(digest.digest()))


def latin_squares(n: int) -> tuple[tuple[Order, ...], ...]:
    """The Williams design for n responses as Latin squares of n orders: one square for even n, two for odd n.

    Within a square, each response stands once at each position. Over the whole design, each response also follows each
    other one equally often (once for even n, twice for odd n).
    """
    if n == 1:
        return (((0,),),)
    # 0, 1, n-1, 2, n-2, ...: all steps between neighbours differ, so its n shifts repeat no pair of neighbours.
    base = [0] + [(p + 1) // 2 if p % 2 else n - p // 2 for p in range(1, n)]
    square = tuple(tuple((i + shift) % n for i in base) for shift in range(n))
    if n % 2 == 0:
        return (square,)
    return square, tuple(order[::-1] for order in square)


WAVES = (4, 8, 16, 24, 32)
"""Rounds after which stop rules look; beyond these, every 8. Few looks, since each one costs a round trip."""


def wave_end(drawn: int, k: int, unit: int, since: int = 0) -> int:
    """The number of rounds after the next wave: `since` plus a multiple of `unit`, but at most k.

    drawn: rounds so far. unit: rounds in a whole design. since: rounds before this plan began.
    """
    target = next((end for end in WAVES if end > drawn), 8 * (drawn // 8 + 1))
    return min(k, since + -(-(target - since) // unit) * unit)


def wave_unit(n: int) -> int:
    """Rounds that a wave of n responses is a multiple of: the whole design, or for odd n >= 5 one of its two squares.

    One square balances positions, though not neighbours. Waiting for 2n rounds would leave little of k to save.
    """
    return 1 if n == 1 else 6 if n == 3 else n


def plan_wave_unit(n: int, list_size: int, *, exchangeable: bool) -> int:
    """Rounds that a wave of `make_plan` is a multiple of; 1 for blocks and for exchangeable orders (no design)."""
    return 1 if n > list_size or exchangeable else wave_unit(n)


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """Draws of the active responses, up to round k."""

    draws: tuple[Draw, ...]
    """Launch order."""
    since: int
    """Rounds before the first of these draws."""
    samples_per_round: int
    """1 for whole lists, else the number of blocks."""
    unit: int
    """Rounds that a wave is a multiple of, see `plan_wave_unit`."""

    def wave(self, drawn: int, k: int) -> tuple[Draw, ...]:
        """The draws of the next wave, after `drawn` rounds (see `wave_end`). Empty at k."""
        end = wave_end(drawn, k, self.unit, self.since)
        return self.draws[(drawn - self.since) * self.samples_per_round : (end - self.since) * self.samples_per_round]


def make_plan(
    active: Sequence[int],
    k: int,
    seed: int,
    list_size: int,
    *,
    since: int = 0,
    first: int = 0,
    exchangeable: bool = False,
) -> SamplePlan:
    """Plan rounds since..k of the active responses, as whole lists if they fit `list_size`, else in blocks.

    first: index of the first draw, that is, how many draws the request has launched before. exchangeable: draw each
    order independently, as `strict` needs; balance is then left to chance.
    """
    unit = plan_wave_unit(len(active), list_size, exchangeable=exchangeable)
    if len(active) > list_size:
        blocks = -(-len(active) // list_size)
        return SamplePlan(plan_blocks(active, k - since, list_size, seed, first), since, blocks, unit)
    if exchangeable:
        return SamplePlan(plan_exchangeable(active, k - since, seed, first), since, 1, unit)
    return SamplePlan(plan(active, k - since, seed, first), since, 1, unit)


def plan(active: Sequence[int], k: int, seed: int, first: int = 0) -> tuple[Draw, ...]:
    """Draws first..first+k-1 of a request, in launch order, each showing all active responses.

    A random relabelling of the responses keeps the request's first response from always being shown first; all designs
    of the plan use the same one. Whole designs come first, then whole Latin squares, then a random part of a square:
    every launch-order prefix is as balanced as its length allows. There are at most n distinct orders (2n for odd n).

    Raises ValueError without a response or with k < 1.
    """
    if not active or k < 1:
        raise ValueError(f"a plan needs at least one response and k >= 1; got {len(active)} responses and k = {k}")
    rng = _rng(seed, first)
    squares = _labelled_squares(active, rng)
    orders: list[Order] = []
    while len(orders) < k:
        for square in rng.sample(squares, len(squares)):
            orders += rng.sample(square, len(square))
    return _draws(orders[:k], seed, first)


def plan_exchangeable(active: Sequence[int], k: int, seed: int, first: int = 0) -> tuple[Draw, ...]:
    """Draws whose orders are picked from the design independently. The samples are then exchangeable, as `strict`
    needs."""
    rng = _rng(seed, first)
    design = [order for square in _labelled_squares(active, rng) for order in square]
    return _draws([rng.choice(design) for _ in range(k)], seed, first)


def plan_blocks(active: Sequence[int], rounds: int, list_size: int, seed: int, first: int = 0) -> tuple[Draw, ...]:
    """Draws that each show a block of at most `list_size` active responses; each round partitions them into blocks.

    Block sizes differ by at most one. Each round prefers to pair responses that shared a block least often, and to put
    each response at the position where it stood least often. A local search thus makes all pair counts and all position
    counts about equal; for most sizes no perfect design exists.

    Returns rounds * ceil(len(active) / list_size) draws.
    """
    rng = _rng(seed, first)
    labels = list(active)
    rng.shuffle(labels)
    orders: list[Order] = []
    for blocks in _block_design(len(labels), -(-len(labels) // list_size), rounds):
        orders += [tuple(labels[i] for i in block) for block in rng.sample(blocks, len(blocks))]
    return _draws(orders, seed, first)


@lru_cache(maxsize=64)
def _block_design(n: int, count: int, rounds: int) -> tuple[tuple[Order, ...], ...]:
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


def _labelled_squares(active: Sequence[int], rng: random.Random) -> list[list[Order]]:
    labels = list(active)
    rng.shuffle(labels)
    return [[tuple(labels[i] for i in order) for order in square] for square in latin_squares(len(labels))]


def _rng(seed: int, first: int) -> random.Random:
    return random.Random(derive_seed(seed, first, 0) if first else derive_seed(seed))


def _draws(orders: Sequence[Order], seed: int, first: int) -> tuple[Draw, ...]:
    return tuple(Draw(j, order, derive_seed(seed, j)) for j, order in enumerate(orders, first))
