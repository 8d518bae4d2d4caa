"""Which samples to draw: the order of responses and the seed of each, decided before anything is generated.

Orders are designed, not shuffled. A Williams design (Williams 1949) shows every response equally often at every
position and equally often right after every other one, which removes the position effect and the contrast with the
neighbour from the mean instead of averaging them out, and it needs only n distinct prompts (2n for odd n), so that the
engine prefills n prompts and not k.
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
    """A seed in 0..2**53-1 for the given place below `seed`.

    A hash, not `seed + j`: neighbouring request seeds must not share samples.
    """
    text = "/".join(map(str, (seed, *path))).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest()) >> 11


def request_seed(seed: int, task: Task) -> int:
    """The seed of one request, from the caller's and from what is judged.

    Many callers send the same seed with every request. Its samples would share their random numbers with those of all
    other requests, and what looks like luck in one would be the same luck in all.
    """
    said = repr((task.query, task.responses, task.reference, task.principles)).encode("utf-8", "replace")
    return derive_seed(seed, int.from_bytes(hashlib.blake2b(said, digest_size=8).digest()))


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


WAVES = (4, 8, 16, 24, 32)
"""Where stopping rules look, in readings of each response; then every 8. Few looks, for each costs a round trip."""


def wave_end(drawn: int, k: int, unit: int, since: int = 0) -> int:
    """The reading, counted from 1, with which the next wave ends: whole designs, k at most.

    drawn: readings so far. unit: readings that a wave is a multiple of, counted from reading `since`.
    """
    target = next((end for end in WAVES if end > drawn), 8 * (drawn // 8 + 1))
    return min(k, since + -(-(target - since) // unit) * unit)


def wave_unit(n: int) -> int:
    """Readings that a wave is a multiple of: the whole design, or from five odd responses on one of its two squares.

    A square balances positions, if not neighbours; to wait for 2n readings would leave little of k to save.
    """
    return 1 if n == 1 else 6 if n == 3 else n


def plan_wave_unit(n: int, list_size: int, *, exchangeable: bool) -> int:
    """Readings that a wave of a `make_plan` is a multiple of: blocks and exchangeable orders have no design to fill."""
    return 1 if n > list_size or exchangeable else wave_unit(n)


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """Draws for the responses that can still win, up to k readings of each."""

    draws: tuple[Draw, ...]
    """Launch order."""
    since: int
    """Readings of each response before the first of these draws."""
    samples_per_round: int
    """Draws that give each response one reading: 1, or as many as there are blocks."""
    unit: int
    """Readings that a wave is a multiple of, see `plan_wave_unit`."""

    def wave(self, drawn: int, k: int) -> tuple[Draw, ...]:
        """The draws from reading `drawn` to the end of the next wave, `wave_end`. Empty at k."""
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
    """Plan the readings since..k of the active responses, in whole lists if they fit `list_size`, else in blocks.

    first: how many draws the request has launched before. exchangeable: draw each order on its own, as `strict` needs;
    balance is then left to chance.
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

    Labels are randomised, so that no response is always first; the same orders are used throughout. Whole designs come
    first, then whole Latin squares, then a random part of one: every launch-order prefix is as balanced as its length
    allows. The number of distinct orders is at most n (2n for odd n).
    """
    if not active or k < 1:
        raise ValueError(f"a plan needs a response and k >= 1, got {len(active)} and k={k}")
    rng = _rng(seed, first)
    squares = _labelled_squares(active, rng)
    orders: list[Order] = []
    while len(orders) < k:
        for square in rng.sample(squares, len(squares)):
            orders += rng.sample(square, len(square))
    return _draws(orders[:k], seed, first)


def plan_exchangeable(active: Sequence[int], k: int, seed: int, first: int = 0) -> tuple[Draw, ...]:
    """Orders drawn from the design one by one, so that the samples are exchangeable, as `strict` needs."""
    rng = _rng(seed, first)
    design = [order for square in _labelled_squares(active, rng) for order in square]
    return _draws([rng.choice(design) for _ in range(k)], seed, first)


def plan_blocks(active: Sequence[int], rounds: int, list_size: int, seed: int, first: int = 0) -> tuple[Draw, ...]:
    """Draws that each show a block of at most `list_size` of the active responses, in rounds: a round shows each once.

    Blocks differ by one in size at most. Each round is dealt so that the pairs that meet have met the least before, and
    each member sits where it sat the least: every pair meets, and every response stands at every position, as equally
    often as a local search finds. For most numbers no perfect design exists.

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
    """The `count` blocks of each round, for responses 0..n-1. The same for all requests, whose labels differ."""
    rng = np.random.default_rng(0)
    met = np.zeros((n, n))
    stood = np.zeros((n, -(-n // count)))
    design = []
    for _ in range(rounds):
        orders: list[Order] = []
        for block in _deal(met, count, rng):
            met[np.ix_(block, block)] += 1
            seats = np.arange(len(block))
            _, members = linear_sum_assignment((stood[np.ix_(block, seats)] ** 2).T + rng.random((len(block),) * 2) / n)
            order = block[members]
            stood[order, seats] += 1
            orders.append(tuple(map(int, order)))
        design.append(tuple(orders))
    return tuple(design)


def _deal(met: Floats, count: int, rng: np.random.Generator) -> list[Ints]:
    """The members of each block: a random partition, improved by the best swap until none helps."""
    n = len(met)
    block_of = rng.permutation(np.arange(n) % count)
    # Twice the cost of a meeting grows with those before it, so that a third one is worse than two second ones.
    while True:
        crowd = met @ (block_of[:, None] == np.arange(count))
        own = crowd[np.arange(n), block_of]
        moved = crowd[:, block_of] - own[:, None] + met.diagonal()[:, None] - met
        gain = np.where(block_of[:, None] == block_of, 0.0, moved + moved.T)
        i, j = np.unravel_index(np.argmin(gain), gain.shape)
        if gain[i, j] >= 0:
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
