"""Plan the draws of a request: the order and seed of each sample, before anything is generated. `prompts` comes next.

Orders are designed, not shuffled. A Williams design (Williams 1949) shows every response equally often at every
position and equally often right after every other response. This removes the position effect and the contrast with the
neighbour from the mean exactly, instead of averaging them out. It needs only n distinct orders (2n for odd n), so the
engine prefills n prompts, not k.

In one round, each active response is shown once: by one sample if all of them fit one list, else by one sample for each
block. A judge that compares two responses gets the pairs of `pair_plan`, and each response is shown about once in a
round. A request has at most k rounds.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from grm_server.grm.block_design import block_design
from grm_server.grm.pair_plan import RING_ROUNDS, pair_design, pair_samples, zigzag
from grm_server.grm.types import Draw, Layout, Order, Task


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


@lru_cache(maxsize=64)
def latin_squares(n: int) -> tuple[tuple[Order, ...], ...]:
    """The Williams design for n responses as Latin squares of n orders: one square for even n, two for odd n.

    Within a square, each response stands once at each position. Over the whole design, each response also follows each
    other one equally often (once for even n, twice for odd n).
    """
    if n == 1:
        return (((0,),),)
    square = tuple(tuple((i + shift) % n for i in zigzag(n)) for shift in range(n))
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


def layout_of(n: int, list_size: int, max_shown: int | None) -> Layout:
    """The layout of n responses.

    list_size: largest number that one sample may show. max_shown: largest number that the judge can read; None if it
    reads lists of any length.
    """
    if n <= min(list_size, max_shown or n):
        return "lists"
    return "singles" if max_shown == 1 else "pairs" if max_shown == 2 else "blocks"


def samples_after(rounds: int, n: int, list_size: int, max_shown: int | None) -> int:
    """Samples in so many rounds of n responses; see `layout_of`."""
    if layout_of(n, list_size, max_shown) == "pairs":
        return pair_samples(n, rounds)
    return rounds * -(-n // min(list_size, max_shown or list_size))


def plan_wave_unit(n: int, layout: Layout, *, exchangeable: bool) -> int:
    """Rounds that a wave of `make_plan` is a multiple of; 1 where there is no design to complete, as for blocks."""
    if layout == "pairs":
        return RING_ROUNDS
    return wave_unit(n) if layout == "lists" and not exchangeable else 1


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """Draws of the active responses, up to round k."""

    draws: tuple[Draw, ...]
    """Launch order."""
    since: int
    """Rounds before the first of these draws."""
    layout: Layout
    samples_per_round: float
    """1 for whole lists, else the number of blocks, half the responses for pairs, or all of them for singles."""
    ends: tuple[int, ...]
    """Number of draws after each of these rounds, cumulative."""
    unit: int
    """Rounds that a wave is a multiple of, see `plan_wave_unit`."""

    def wave(self, drawn: int, k: int) -> tuple[Draw, ...]:
        """The draws of the next wave, after `drawn` rounds. Empty at k."""
        return self.between(drawn, self.wave_end(drawn, k))

    def between(self, drawn: int, end: int) -> tuple[Draw, ...]:
        """The draws of these rounds."""
        return self.draws[self._draws(drawn) : self._draws(end)]

    def wave_end(self, drawn: int, k: int) -> int:
        """The number of rounds after the next wave, see `wave_end`."""
        return wave_end(drawn, k, self.unit, self.since)

    def _draws(self, rounds: int) -> int:
        return self.ends[rounds - self.since - 1] if rounds > self.since else 0


def make_plan(
    active: Sequence[int],
    k: int,
    seed: int,
    list_size: int,
    *,
    max_shown: int | None = None,
    since: int = 0,
    first: int = 0,
    exchangeable: bool = False,
) -> SamplePlan:
    """Plan rounds since..k of the active responses in their `layout_of`.

    first: index of the first draw, that is, how many draws the request has launched before. exchangeable: draw each
    order independently, as `strict` needs; balance is then left to chance.
    """
    layout, rounds = layout_of(len(active), list_size, max_shown), k - since
    if layout == "pairs":
        draws = plan_pairs(active, rounds, seed, first)
    elif layout == "singles":
        draws = plan_singles(active, rounds, seed, first)
    elif layout == "blocks":
        draws = plan_blocks(active, rounds, min(list_size, max_shown or list_size), seed, first)
    else:
        draws = (plan_exchangeable if exchangeable else plan)(active, rounds, seed, first)
    ends = tuple(samples_after(r, len(active), list_size, max_shown) for r in range(1, rounds + 1))
    unit = plan_wave_unit(len(active), layout, exchangeable=exchangeable)
    return SamplePlan(draws, since, layout, len(draws) / rounds, ends, unit)


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
    for blocks in block_design(len(labels), -(-len(labels) // list_size), rounds):
        orders += [tuple(labels[i] for i in block) for block in rng.sample(blocks, len(blocks))]
    return _draws(orders, seed, first)


def plan_pairs(active: Sequence[int], rounds: int, seed: int, first: int = 0) -> tuple[Draw, ...]:
    """Draws that each show two active responses, relabelled at random, see `pair_design`."""
    rng = _rng(seed, first)
    labels = list(active)
    rng.shuffle(labels)
    return _draws([(labels[a], labels[b]) for a, b in pair_design(len(labels), rounds)], seed, first)


def plan_singles(active: Sequence[int], rounds: int, seed: int, first: int = 0) -> tuple[Draw, ...]:
    """Draws that each show one active response; each round shows all of them, in random order."""
    rng = _rng(seed, first)
    return _draws([(i,) for _ in range(rounds) for i in rng.sample(list(active), len(active))], seed, first)


def _labelled_squares(active: Sequence[int], rng: random.Random) -> list[list[Order]]:
    labels = list(active)
    rng.shuffle(labels)
    return [[tuple(labels[i] for i in order) for order in square] for square in latin_squares(len(labels))]


def _rng(seed: int, first: int) -> random.Random:
    return random.Random(derive_seed(seed, first, 0) if first else derive_seed(seed))


def _draws(orders: Sequence[Order], seed: int, first: int) -> tuple[Draw, ...]:
    return tuple(Draw(j, order, derive_seed(seed, j)) for j, order in enumerate(orders, first))
