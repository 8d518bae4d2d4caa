"""The vocabulary of the method.

Indices: i = response, j = sample, p = position shown. `order[p] = i`: the response shown at position p is number i,
so scores are put back by `scores[order[p]] = shown[p]`. The inverse mistake cannot be seen for n <= 2, because every
order of two is its own inverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeGuard, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Bools = NDArray[np.bool_]
Role = Literal["system", "user", "assistant"]
Order = tuple[int, ...]
"""(list size,), order[p] = i. Shorter than n where a sample shows a block of the responses."""
MetaAggregate = Literal["meta_hinge", "meta_top"]
Aggregate = Literal["mean", "winsorised", "vote", "borda", MetaAggregate]
Reading = Literal["sampled", "expected"]
EarlyRuleName = Literal["decided", "strict", "precision"]
RuleName = Literal["fixed", EarlyRuleName]


def needs_meta_rm(aggregate: Aggregate) -> TypeGuard[MetaAggregate]:
    return aggregate in get_args(MetaAggregate)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation that is to be answered."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Task:
    """What is judged: a conversation and the candidate answers to its last turn."""

    query: tuple[Message, ...]
    responses: tuple[str, ...]
    """(n,), n >= 1."""
    reference: str | None = None
    """A known good answer, shown to the judge."""
    principles: str | None = None
    """Criteria to judge under; None lets the judge write its own."""
    hint: int | None = None
    """The label, told to the judge to collect training data: index of the best response, or of one response 0 or 1."""

    @property
    def shared_chars(self) -> int:
        """Of all that is shown beside the responses."""
        told = sum(len(message.content) for message in self.query)
        return told + len(self.reference or "") + len(self.principles or "")


@dataclass(frozen=True, slots=True)
class Draw:
    """What sample j will be, decided before anything is generated."""

    index: int
    """j, the launch order: 0..k-1."""
    order: Order
    seed: int
    """0..2**53-1, derived from (request seed, j), so that a JSON client can read it exactly."""


@dataclass(frozen=True, slots=True)
class ScoreToken:
    """One generated token of the score tail, with the distribution it was drawn from."""

    text: str
    logprobs: Mapping[str, float]
    """Token text -> log-probability after temperature and constraint; the likeliest tokens, the drawn one included."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of a sample: a lead that the judge is given, then text that it writes."""

    name: Literal["principles", "critique", "scores"]
    lead: str
    """Forced text, put before what the model writes."""
    max_tokens: int
    stops: tuple[str, ...] = ()
    """Writing ends before the first of these; the end of the model's turn ends it too."""
    pattern: str | None = None
    """A regular expression that the text is constrained to, with log-probabilities kept; None leaves it free."""
    expected: bool = False
    """The last number's expectation is wanted: see `Sample.ten_share`."""


@dataclass(frozen=True, slots=True)
class Script:
    """All that an engine needs to write one sample: the judge's prompt and what follows it."""

    prompt: str
    """One user turn; the engine puts the model's own chat template around it."""
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One raw generation."""

    texts: Mapping[str, str]
    """Segment name -> what the model wrote there, without the lead."""
    cut: tuple[str, ...] = ()
    """Names of free segments that reached their token budget."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens found in the engine's prefix cache."""
    completion_tokens: int = 0
    score_tokens: tuple[ScoreToken, ...] = ()
    ten_share: float | None = None
    """Where "10" is two tokens: the probability that a last score which begins with "1" is 10. None where "1" is too
    unlikely to matter, where "10" is one token, or where no expectation is wanted."""
    started_s: float = 0.0
    """When the engine began this sample, on `time.monotonic`."""
    finished_s: float = 0.0

    @property
    def principles(self) -> str | None:
        """The criteria that the judge wrote; None where they were given to it."""
        return self.texts["principles"].strip() if "principles" in self.texts else None

    @property
    def critique(self) -> str:
        return self.texts.get("critique", "").strip()


class FailureReason(StrEnum):
    """Why a sample has no scores."""

    NO_SCORES = "no_scores"
    """The tail holds no complete list of integers."""
    WRONG_COUNT = "wrong_count"
    """The tail holds another number of scores than responses were shown."""
    OUT_OF_RANGE = "out_of_range"
    """A score is not within 1..10. It is not clamped: a judge that leaves its scale was not judging on it."""
    ENGINE_ERROR = "engine_error"
    """The engine failed this one sample."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that gave no scores: counted and named, never scored."""

    draw: Draw
    reason: FailureReason
    sample: Sample | None = None
    """None when the engine gave nothing."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A sample that parsed."""

    draw: Draw
    sample: Sample
    scores: tuple[int | None, ...]
    """(n,), request order, each 1..10; None where not shown."""
    meta_reward: float | None = None
    """The meta RM's probability that these scores are right, 0..1; None where it was not asked."""
    rated_s: float | None = None
    """When it said so, on `time.monotonic`."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Draw all k samples."""

    name: ClassVar[RuleName] = "fixed"
    looks_early: ClassVar[bool] = False
    """It looks at the samples before all k are drawn, so they go out in waves."""
    judges_singles: ClassVar[bool] = False
    """It can stop early on a single response too, where there is nothing to decide between."""
    exchangeable_orders: ClassVar[bool] = False
    """It needs each order drawn on its own instead of a balanced design."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Stop when all k samples would hardly change the decision (predictive stochastic curtailment)."""

    name: ClassVar[RuleName] = "decided"
    looks_early: ClassVar[bool] = True
    judges_singles: ClassVar[bool] = False
    exchangeable_orders: ClassVar[bool] = False
    gamma: float
    """The most that the predicted probability of another decision at full k may be, 0..1."""
    target: Literal["best", "ranking"] = "best"


@dataclass(frozen=True, slots=True)
class Strict:
    """Stop when the best response at full k is certain up to delta, whatever the scores' distribution."""

    name: ClassVar[RuleName] = "strict"
    looks_early: ClassVar[bool] = True
    judges_singles: ClassVar[bool] = False
    exchangeable_orders: ClassVar[bool] = True
    delta: float
    """Probability, over the orders in which the k samples could have come, of naming another response, 0..1."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Stop when every reward's standard error is small enough."""

    name: ClassVar[RuleName] = "precision"
    looks_early: ClassVar[bool] = True
    judges_singles: ClassVar[bool] = True
    exchangeable_orders: ClassVar[bool] = False
    se: float
    """Points of the reward's scale."""


StopRule = Fixed | Decided | Strict | Precision
RULES: Mapping[RuleName, type[StopRule]] = MappingProxyType(
    {"fixed": Fixed, "decided": Decided, "strict": Strict, "precision": Precision}
)
"""To add a rule: its class and a row here, its decision in `stopping.decide`, its parameters in the API schema and in
`settings`."""


def rule_named(name: RuleName, parameters: Mapping[str, Any]) -> StopRule:
    """The rule with those of the parameters that it has, by the names of its fields."""
    rule = RULES[name]
    return rule(**{field.name: parameters[field.name] for field in fields(rule) if field.name in parameters})


class StopReason(StrEnum):
    """Why no further samples were drawn."""

    FULL_K = "full_k"
    DECIDED = "decided"
    STRICT = "strict"
    PRECISION = "precision"
    DEADLINE = "deadline"


@dataclass(frozen=True, slots=True)
class Prior:
    """What traffic says about a request before its first sample; units are squared points of the ballots."""

    pair_variance: float
    """s0^2: variance, over the samples of a request, of the difference between two responses' scores."""
    gap_variance: float
    """omega^2: variance, over requests, of the difference that infinitely many samples would show."""
    score_variance: float
    """Variance, over the samples of a request, of one response's score."""


@dataclass(frozen=True, slots=True, eq=False)
class Ballots:
    """What each sample of a launch-order prefix votes."""

    values: Floats
    """(m, n), NaN where a response was not shown or the sample has no scores. Their mean over samples is the reward.
    Under a meta RM's weights w_j, scaled to mean 1, differences within a sample are w_j times those of its scores."""
    votes: Bools
    """(m,), samples that vote."""
    range: float
    """How far two ballots of a sample can be apart; infinite where a later sample may change an earlier ballot."""


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the samples of a launch-order prefix say, before anything is decided or shrunk."""

    launched: int
    """m: samples drawn, those without scores included."""
    valid: int
    """t: samples with scores."""
    means: Floats
    """(n,), each response's mean ballot, freed of the leniency of the samples that showed it; NaN if none did."""
    shown: Floats
    """(n,), samples with scores that showed the response."""
    mean_variance: Floats
    """(n,), variance of each of `means` as an estimate of what infinitely many samples would give."""
    pairs: Floats
    """(n, n), how many samples that showed both responses their difference of means is worth."""
    pair_variance: Floats
    """(n, n), s2: variance of one sample's difference, shrunk towards the prior; 0 on the diagonal."""
    freedom: Floats
    """(n, n), degrees of freedom of `pair_variance`, the prior's included."""
    prior: Prior


@dataclass(frozen=True, slots=True)
class Contenders:
    """Who can still win, and what the decision to leave the others behind has cost."""

    active: tuple[int, ...]
    risk_spent: float = 0.0
    """Sum of the predicted probabilities that a response which was dropped would have won."""


@dataclass(frozen=True, slots=True)
class Decision:
    """After a wave: go on or stop."""

    stop: StopReason | None
    """None: draw the next wave."""
    risk: float
    """Predicted probability that all k samples would decide otherwise, 0..1."""
    contenders: Contenders


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the votes add up to. See `voting.vote` for what each number means and does not mean."""

    rewards: tuple[float, ...]
    """(n,)"""
    se: tuple[float, ...]
    """(n,)"""
    p_best: tuple[float, ...]
    """(n,), sums to 1."""
    p_greater: tuple[tuple[float, ...], ...]
    """(n, n), row beats column; 0.5 on the diagonal."""
    vote_sums: tuple[int, ...]
    """(n,)"""
    shown: tuple[int, ...]
    """(n,), votes for each response."""
    ranking: tuple[int, ...]
    """(n,), response indices, best first."""
    ties: tuple[tuple[int, ...], ...]
    """Groups of two or more responses with equal rewards, best group first."""
    position_effect: tuple[float, ...] | None
    """(list size,)"""

    @property
    def best(self) -> int:
        """The first of `ranking`; see `ties` for whether it stands alone."""
        return self.ranking[0]
