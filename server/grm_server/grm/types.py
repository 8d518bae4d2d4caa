"""The data types of the method, which all its stages share.

Indices: i = response, j = sample, p = position shown. `order[p] = i`: the response shown at position p is number i,
so `scores[order[p]] = shown[p]` puts scores back into request order. Inverting the order by mistake goes unnoticed for
n <= 2, because every order of two is its own inverse.

Sizes: n responses, k rounds at most, m samples. A round shows each active response once: in one sample if the list
fits, else in one sample for each block. In pairs it shows each about once, see `pair_plan`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeGuard, get_args

import numpy as np
from numpy.typing import NDArray

from grm_server.grm.script import Sample

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]
LOW, HIGH = 1.0, 10.0
"""The reward scale: formats map their judge's values onto it."""
Role = Literal["system", "user", "assistant", "tool"]
Order = tuple[int, ...]
"""(list size,), order[p] = i. Shorter than n if the sample shows a block of the responses."""
MetaAggregate = Literal["meta_hinge", "meta_top"]
Aggregate = Literal["mean", "winsorised", "vote", "borda", MetaAggregate]
Reading = Literal["sampled", "expected"]
Layout = Literal["lists", "blocks", "singles", "pairs"]
"""What one sample shows: all responses; some of them, where all do not fit; one, where the judge grades; or two, where
the judge compares and there are more."""


def needs_meta_rm(aggregate: Aggregate) -> TypeGuard[MetaAggregate]:
    return aggregate in get_args(MetaAggregate)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Task:
    """A conversation and the responses to judge, which answer its last turn."""

    query: tuple[Message, ...]
    responses: tuple[str, ...]
    """(n,), n >= 1."""
    reference: str | None = None
    """A known good answer, shown to the judge."""
    principles: str | None = None
    """Criteria to judge by; if None, the judge writes its own."""
    hint: int | None = None
    """The label, shown to the judge when collecting training data: the index of the best response; with one response,
    1 for good and 0 for bad."""

    @property
    def shared_chars(self) -> int:
        """Characters of all texts but the responses."""
        query = sum(len(message.content) for message in self.query)
        return query + len(self.reference or "") + len(self.principles or "")


@dataclass(frozen=True, slots=True)
class Draw:
    """The plan of sample j, made before anything is generated."""

    index: int
    """j, the launch order: 0..k-1."""
    order: Order
    seed: int
    """0..2**53-1, which JSON clients read exactly; derived from (request seed, j)."""


class FailureReason(StrEnum):
    """Why a sample has no scores."""

    NO_SCORES = "no_scores"
    """The verdict cannot be read."""
    WRONG_COUNT = "wrong_count"
    """The number of values differs from the number of responses shown."""
    OUT_OF_RANGE = "out_of_range"
    """A value is not on the judge's scale. We do not clamp it: a judge that leaves the scale was not judging on it."""
    ENGINE_ERROR = "engine_error"
    """The engine failed to generate this sample."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample without scores: counted by reason, never given a score."""

    draw: Draw
    reason: FailureReason
    sample: Sample | None = None
    """None if the engine returned no text."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A sample that was parsed successfully."""

    draw: Draw
    sample: Sample
    scores: tuple[float | None, ...]
    """(n,), request order, on the judge's own scale; None where not shown. Of a comparison: 1 for the winner and 0 for
    the loser, or the shares of a preference."""
    expected_scores: tuple[float | None, ...]
    """(n,), each score's expectation given the critique and the values before it; None where the response was not shown
    or the tokens do not determine it."""
    points: tuple[float | None, ...]
    """(n,), the scores on the reward scale, `LOW..HIGH`."""
    expected_points: tuple[float | None, ...]
    """(n,), `points`, in expectation where that is sound: the last value of a list, all of a comparison."""
    meta_reward: float | None = None
    """The meta RM's probability that these scores are right, 0..1; None if it did not rate them."""
    rated_s: float | None = None
    """When the meta RM returned it, on `time.monotonic`."""


class StopReason(StrEnum):
    """Why no further samples were drawn."""

    FULL_K = "full_k"
    DECIDED = "decided"
    STRICT = "strict"
    PRECISION = "precision"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Prior:
    """Prior variances of a request, learned from traffic; in squared points of the ballots."""

    pair_variance: float
    """s0^2: variance, over the samples of a request, of the difference between two responses' scores."""
    gap_variance: float
    """omega^2: variance, over requests, of the true difference (the mean over infinitely many samples)."""
    score_variance: float
    """Variance, over the samples of a request, of one response's score."""


@dataclass(frozen=True, slots=True, eq=False)
class Ballots:
    """The ballots of each sample of a launch-order prefix."""

    values: Floats
    """(m, n), NaN where a response was not shown or the sample has no scores. Their mean over samples is the reward.
    Under a meta RM's weights w_j, scaled to mean 1, differences within a sample are w_j times those of its scores."""
    votes: Bools
    """(m,), whether each sample votes."""
    range: float
    """Largest difference between two ballots of one sample; infinite if a later sample may change an earlier ballot."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """Estimates from the samples of a launch-order prefix, before any decision or shrinkage of the means."""

    launched: int
    """m: samples drawn, including those without scores."""
    valid: int
    """t: samples with scores."""
    means: Floats
    """(n,), each response's mean ballot, corrected for the leniency of the samples that showed it; NaN if none did.
    Under `win_range`, its ability instead: the log-odds that it wins against a response of ability 0."""
    shown: Floats
    """(n,), samples with scores that showed the response."""
    mean_variance: Floats
    """(n,), variance of each reward as an estimate of the mean over infinitely many samples, in squared points."""
    pairs: Floats
    """(n, n), effective number of samples that showed both responses, by the variance of their difference of means."""
    pair_variance: Floats
    """(n, n), s2: variance of one sample's difference, shrunk towards the prior; 0 on the diagonal."""
    freedom: Floats
    """(n, n), degrees of freedom of `pair_variance`, including the prior's."""
    prior: Prior
    """In the units of `means`."""
    pairs_at_k: Floats | None = None
    """(n, n), what `pairs` will be if all planned samples have scores; None: `pairs` grow like the rounds."""
    win_range: tuple[float, float] | None = None
    """The ballots of a loser and a winner, if `means` are abilities; see `pairs`."""


@dataclass(frozen=True, slots=True)
class Contenders:
    """The responses that can still win, and the risk accepted by dropping the others."""

    active: tuple[int, ...]
    risk_spent: float = 0.0
    """Sum of the predicted probabilities that a dropped response would have won."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The result of the stop rule after a wave: stop or go on."""

    stop: StopReason | None
    """None: draw the next wave."""
    risk: float
    """Predicted probability that all k samples would lead to another decision, 0..1."""
    contenders: Contenders


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of the vote. See `voting.vote` for what each number means and does not mean."""

    rewards: tuple[float, ...]
    """(n,)"""
    se: tuple[float, ...]
    """(n,)"""
    p_best: tuple[float, ...]
    """(n,), sums to 1."""
    p_greater: tuple[tuple[float, ...], ...]
    """(n, n), row beats column; 0.5 on the diagonal."""
    vote_sums: tuple[float, ...]
    """(n,), on the judge's own scale."""
    shown: tuple[int, ...]
    """(n,), samples that scored each response."""
    ranking: tuple[int, ...]
    """(n,), response indices, best first."""
    ties: tuple[tuple[int, ...], ...]
    """Groups of two or more responses with equal rewards, best group first."""
    position_effect: tuple[float, ...] | None
    """(list size,)"""

    @property
    def best(self) -> int:
        """The first of `ranking`; `ties` shows whether another response has the same reward."""
        return self.ranking[0]
