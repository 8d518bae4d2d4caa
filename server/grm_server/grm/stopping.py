"""Decide after each wave, from the evidence of all samples launched so far, whether to stop or to draw another wave.

`decided`    predictive stochastic curtailment (Lan, Simon & Halperin 1982): the predicted probability that the
             remaining samples would change the decision. It is a model's prediction, correct on average over traffic
             that matches the prior; docs/design/stopping.md says when it fails.
`strict`     a betting e-process for sampling without replacement (Waudby-Smith & Ramdas 2020): valid for any
             distribution of the scores, at the cost of more samples.
`precision`  sequential estimation to a fixed standard error (Chow & Robbins 1965), with a shrunk variance.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
from scipy.special import stdtr

from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.types import Aggregate, Contenders, Decision, Evidence, Floats, Ints, Layout, StopReason

ELIMINATE_FROM = 6
"""Smallest number of responses at which dropping losers saves more prompt tokens than it costs."""
DROP_SHARE = 0.5
"""Share of gamma that dropping may use up; the rest is for the decision among the remaining responses."""
DROP_AT_LEAST = 0.25
"""Smallest share of the active responses worth dropping; below it, the new prompts cost more than they save. In singles
and pairs, dropping changes no prompt, so it saves from three responses on, even a single one."""
_BETS = np.array([0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.99])
_SHORT: Container[Layout] = ("singles", "pairs")
EarlyRuleName = Literal["decided", "strict", "precision"]
RuleName = Literal["fixed", EarlyRuleName]


@dataclass(frozen=True, slots=True)
class Fixed:
    """Draw all k samples."""

    name: ClassVar[RuleName] = "fixed"
    looks_early: ClassVar[bool] = False
    """It looks at the samples before full k, so they are drawn in waves."""
    judges_singles: ClassVar[bool] = False
    """It can stop a request with a single response early, although there is nothing to decide."""
    exchangeable_orders: ClassVar[bool] = False
    """It needs each order drawn independently instead of a balanced design."""


@dataclass(frozen=True, slots=True)
class Decided:
    """Stop when the remaining samples would probably not change the decision (predictive stochastic curtailment)."""

    name: ClassVar[RuleName] = "decided"
    looks_early: ClassVar[bool] = True
    judges_singles: ClassVar[bool] = False
    exchangeable_orders: ClassVar[bool] = False
    gamma: float
    """Highest accepted probability of another decision at full k, as predicted, 0..1."""
    target: Literal["best", "ranking"] = "best"


@dataclass(frozen=True, slots=True)
class Strict:
    """Stop when the best response at full k is certain up to delta, for any distribution of the scores."""

    name: ClassVar[RuleName] = "strict"
    looks_early: ClassVar[bool] = True
    judges_singles: ClassVar[bool] = False
    exchangeable_orders: ClassVar[bool] = True
    delta: float
    """Bound on the probability of naming another response than at full k, over the random order of the k samples,
    0..1."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Stop when every reward's standard error is small enough."""

    name: ClassVar[RuleName] = "precision"
    looks_early: ClassVar[bool] = True
    judges_singles: ClassVar[bool] = True
    exchangeable_orders: ClassVar[bool] = False
    se: float
    """In points of the reward's scale."""


StopRule = Fixed | Decided | Strict | Precision
RULES: Mapping[RuleName, type[StopRule]] = MappingProxyType(
    {"fixed": Fixed, "decided": Decided, "strict": Strict, "precision": Precision}
)
"""To add a rule, add its class and a row here, its decision in `stopping.decide`, and its parameters in the API schema
and in `settings`."""


def rule_named(name: RuleName, parameters: Mapping[str, Any]) -> StopRule:
    """The rule, built from the parameters that match its field names; the others are ignored."""
    rule = RULES[name]
    return rule(**{field.name: parameters[field.name] for field in fields(rule) if field.name in parameters})


def decide(
    rule: StopRule,
    evidence: Evidence,
    values: Floats,
    drawn: float,
    k: int,
    contenders: Contenders,
    *,
    ballot_range: float,
    droppable: bool,
    min_votes: int = 1,
    layout: Layout = "lists",
) -> Decision:
    """Whether to stop, and if not, which responses stay active.

    values: (m, n) the ballots behind the evidence, in launch order.
    drawn, k: rounds so far and at most; `drawn` is fractional if a deadline cut a round of blocks.
    ballot_range: largest possible difference between two ballots of one sample.
    droppable: whether responses may be dropped, see `may_drop`. layout: decides how many are worth dropping.
    min_votes: neither stopping nor dropping may leave a response with fewer scores.
    """
    left = (k - drawn) / drawn
    names_best = not (isinstance(rule, Decided) and rule.target == "ranking")
    risks = rival_risks(evidence, left, contenders.active) if names_best else ranking_risks(evidence, left)
    risk = min(1.0, contenders.risk_spent + float(risks.sum()))
    stop = None
    if drawn >= k:
        stop = StopReason.FULL_K
    elif evidence.shown.min() < min_votes:
        pass
    elif isinstance(rule, Precision):
        stop = StopReason.PRECISION if np.sqrt(evidence.mean_variance.max()) <= rule.se else None
    elif len(evidence.means) < 2 or isinstance(rule, Fixed):
        # A single response leaves nothing to decide, so its reward gets all the samples that were requested.
        pass
    elif isinstance(rule, Strict):
        stop = StopReason.STRICT if proven(values, k, ballot_range, rule.delta) else None
    elif risk <= rule.gamma:
        stop = StopReason.DECIDED
    elif droppable:
        first, at_least = leader(evidence, contenders.active), 0.0 if layout in _SHORT else DROP_AT_LEAST
        contenders = _drop(contenders, risks, first, rule.gamma * DROP_SHARE, at_least)
    return Decision(stop, risk, contenders)


def may_drop(rule: StopRule, n: int, aggregate: Aggregate, layout: Layout = "lists") -> bool:
    """Whether responses may be dropped before full k. Not where ballots depend on the other responses in the list, as
    for votes, Borda counts and meta rewards."""
    names_best = isinstance(rule, Decided) and rule.target == "best"
    return names_best and n >= (3 if layout in _SHORT else ELIMINATE_FROM) and AGGREGATES[aggregate].droppable


def leader(evidence: Evidence, active: Sequence[int]) -> int:
    """The active response with the highest mean; a response without a score ranks last."""
    return max(active, key=lambda i: -np.inf if np.isnan(evidence.means[i]) else evidence.means[i])


def rival_risks(evidence: Evidence, left: float, active: Sequence[int]) -> Floats:
    """(len(active),): for each active response, the predicted probability that it ends level with or ahead of the
    leader at full k.

    left: samples still to come, as a multiple of the samples drawn.

    For the leader a and a rival b, D is the sum of t differences of variance s2. The true gap has the prior
    N(0, omega^2) and so the posterior N(mu, v). The R samples to come add R * gap and noise of variance R * s2:

        v = 1 / (t / s2 + 1 / omega^2)      mu = v * D / s2      z = (D + R * mu) / sqrt(R * s2 + R^2 * v)
        risk = T(-z), the CDF of Student's t with the degrees of freedom of s2

    With pairs, t and R count effective samples: what the fit knows of the difference, and what it will know at full k.

    0 for the leader itself, 1 for a response without a score.
    """
    first = leader(evidence, active)
    rivals = [i for i in active if i != first]
    risks = np.zeros(len(active))
    risks[[i != first for i in active]] = _overtaking_risks(evidence, left, [first] * len(rivals), rivals)
    return risks


def ranking_risks(evidence: Evidence, left: float) -> Floats:
    """(n - 1,): for each pair of neighbours in the current ranking, the predicted probability that they swap."""
    ranking = np.argsort(-evidence.means, kind="stable")
    return _overtaking_risks(evidence, left, ranking[:-1], ranking[1:])


def _overtaking_risks(
    evidence: Evidence, left: float, ahead: Sequence[int] | Ints, behind: Sequence[int] | Ints
) -> Floats:
    """(len(ahead),): for each pair, the predicted probability that `behind` catches up with `ahead`."""
    t, s2 = evidence.pairs[ahead, behind], evidence.pair_variance[ahead, behind]
    gap = evidence.means[ahead] - evidence.means[behind]
    if left <= 0:
        return np.zeros(len(gap))
    # Expected share of valid samples, with a prior of 10 samples of which one fails, relative to the share so far.
    valid_share = (evidence.valid + 9) / (evidence.launched + 10) * evidence.launched / max(evidence.valid, 1)
    at_k = evidence.pairs_at_k
    r = (t * left if at_k is None else np.maximum(at_k[ahead, behind] - t, 1e-9)) * valid_share
    v = 1 / (t / s2 + 1 / evidence.prior.gap_variance)
    z = (t * gap + r * v * t * gap / s2) / np.sqrt(r * s2 + r**2 * v)
    risks: Floats = np.nan_to_num(stdtr(evidence.freedom[ahead, behind], -z), nan=1.0)
    return risks


def _drop(contenders: Contenders, risks: Floats, first: int, limit: float, at_least: float) -> Contenders:
    """Drop as many of the least likely rivals as the limit on `risk_spent` allows; the strongest rival always stays.

    risks: (len(active),). first: the leader. at_least: smallest share of the active responses worth dropping.
    """
    risk_spent, dropped = contenders.risk_spent, set[int]()
    rivals = [index for index in np.argsort(risks, kind="stable").tolist() if contenders.active[index] != first]
    for index in rivals[:-1]:
        if risk_spent + risks[index] > limit:
            break
        risk_spent += float(risks[index])
        dropped.add(index)
    if len(dropped) < at_least * len(contenders.active):
        return contenders
    return Contenders(tuple(i for index, i in enumerate(contenders.active) if index not in dropped), risk_spent)


def proven(values: Floats, k: int, ballot_range: float, delta: float) -> bool:
    """Whether the response with the largest sum so far also has the largest sum over all k samples, with an error
    probability of at most delta.

    values: (m, n), m <= k ballots in launch order, drawn exchangeably; a sample without scores has differences of 0.
    ballot_range: largest possible difference between two ballots of one sample.

    For each rival, a bettor bets against the hypothesis "the sum of differences over all k samples is <= 0". Under it,
    the next difference d_j has a conditional mean of at most m_j = -(sum so far) / (samples left). So with bets c, the
    wealth

        E = mean over c of prod_j (1 + c * (d_j - m_j) / (range + m_j))

    is a nonnegative supermartingale and reaches 1/alpha with probability at most alpha (Ville). A wrong leader is
    claimed only if the bettor against the true winner reaches 1/alpha, and there are n - 1 possible wrong leaders:
    alpha = delta / (n - 1). Proof in docs/design/stopping.md.
    """
    sums = np.nansum(values, axis=0)
    leader = int(np.argmax(sums))
    d = np.delete(np.nan_to_num(values[:, [leader]] - values), leader, axis=1)
    wealth = np.ones((len(_BETS), d.shape[1]))
    certain = np.zeros(d.shape[1], dtype=bool)
    before = np.zeros(d.shape[1])
    for j, step in enumerate(d):
        bound = -before / (k - j)
        room = ballot_range + bound
        # room < 0: the remaining samples cannot level the lead. room = 0: they can only just level it, so no bet.
        certain |= room < 0
        wealth = wealth * np.where(room > 0, 1 + _BETS[:, None] * (step - bound) / np.where(room > 0, room, 1.0), 1.0)
        before = before + step
    certain |= before > ballot_range * (k - len(d))
    return bool(np.all(certain | (wealth.mean(axis=0) >= d.shape[1] / delta)))
