"""Enough evidence, or another wave? Pure; called at the end of each wave on all samples launched so far.

`decided`  predictive stochastic curtailment (Lan, Simon & Halperin 1982): the predicted probability that the samples
           still to come would change the decision. A statement of a model, right on average over traffic that looks
           like the prior's; see docs/design/stopping.md for when it is not.
`strict`   a betting e-process for sampling without replacement (Waudby-Smith & Ramdas 2020): right whatever the
           distribution of the scores, and dear for it.
`precision`  sequential estimation to a fixed standard error (Chow & Robbins 1965), with a shrunk variance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtr

from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.types import (
    Aggregate,
    Contenders,
    Decided,
    Decision,
    Evidence,
    Fixed,
    Floats,
    Ints,
    Precision,
    StopReason,
    StopRule,
    Strict,
)

ELIMINATE_FROM = 6
"""Responses from which on dropping losers saves more prompt than it costs."""
DROP_SHARE = 0.5
"""Share of gamma that dropping may use up; the rest is for the decision among those that stay."""
DROP_AT_LEAST = 0.25
"""Share of the active responses; for fewer the new prompts cost more than they save."""
_BETS = np.array([0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.99])


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
) -> Decision:
    """Stop, or who goes on.

    values: (m, n) the ballots behind the evidence, in launch order.
    drawn, k: readings of each active response, so far and at most; a deadline may cut a round of blocks in its middle.
    reach: how far two ballots of a sample can be apart.
    droppable: whether responses may be dropped, see `may_drop`.
    min_votes: no response may be left with fewer scores, by stopping or by being dropped.
    """
    left = (k - drawn) / drawn
    best = not (isinstance(rule, Decided) and rule.target == "ranking")
    risks = rival_risks(evidence, left, contenders.active) if best else ranking_risks(evidence, left)
    risk = min(1.0, contenders.risk_spent + float(risks.sum()))
    stop = None
    if drawn >= k:
        stop = StopReason.FULL_K
    elif evidence.shown.min() < min_votes:
        pass
    elif isinstance(rule, Precision):
        stop = StopReason.PRECISION if np.sqrt(evidence.mean_variance.max()) <= rule.se else None
    elif len(evidence.means) < 2 or isinstance(rule, Fixed):
        # With one response there is nothing to decide, and its reward is worth all the samples that were asked for.
        pass
    elif isinstance(rule, Strict):
        stop = StopReason.STRICT if proven(values, k, ballot_range, rule.delta) else None
    elif risk <= rule.gamma:
        stop = StopReason.DECIDED
    elif droppable:
        contenders = _drop(contenders, risks, leader(evidence, contenders.active), rule.gamma * DROP_SHARE)
    return Decision(stop, risk, contenders)


def may_drop(rule: StopRule, n: int, aggregate: Aggregate) -> bool:
    """Whether responses may be dropped on the way. A vote, a Borda count and a meta reward depend on who else is in the
    list."""
    best = isinstance(rule, Decided) and rule.target == "best"
    return best and n >= ELIMINATE_FROM and AGGREGATES[aggregate].droppable


def leader(evidence: Evidence, active: Sequence[int]) -> int:
    """The active response with the highest mean; one without a score is behind all others."""
    return max(active, key=lambda i: -np.inf if np.isnan(evidence.means[i]) else evidence.means[i])


def rival_risks(evidence: Evidence, left: float, active: Sequence[int]) -> Floats:
    """(len(active),): for each active response, the predicted probability that it ends level with the leader or ahead.

    left: samples still to come, as a multiple of those drawn.

    For the leader a and a rival b, D is the sum of t differences of variance s2. The true gap has the prior
    N(0, omega^2), so its posterior is N(mu, v); the R samples to come add R * gap and noise of variance R * s2:

        v = 1 / (t / s2 + 1 / omega^2)      mu = v * D / s2      z = (D + R * mu) / sqrt(R * s2 + R^2 * v)
        risk = T(-z), Student's distribution with the freedom of s2

    0 for the leader itself, 1 for a response without a score.
    """
    first = leader(evidence, active)
    rivals = [i for i in active if i != first]
    risks = np.zeros(len(active))
    risks[[i != first for i in active]] = _overtaking(evidence, left, [first] * len(rivals), rivals)
    return risks


def ranking_risks(evidence: Evidence, left: float) -> Floats:
    """(n - 1,): for each pair of neighbours in the present ranking, the predicted probability that they swap."""
    order = np.argsort(-evidence.means, kind="stable")
    return _overtaking(evidence, left, order[:-1], order[1:])


def _overtaking(evidence: Evidence, left: float, ahead: Sequence[int] | Ints, behind: Sequence[int] | Ints) -> Floats:
    t, s2 = evidence.pairs[ahead, behind], evidence.pair_variance[ahead, behind]
    gap = evidence.means[ahead] - evidence.means[behind]
    if left <= 0:
        return np.zeros(len(gap))
    # The share of samples with scores so far, with one failure in ten counted in advance.
    valid_share = (evidence.valid + 9) / (evidence.launched + 10) * evidence.launched / max(evidence.valid, 1)
    r = t * left * valid_share
    v = 1 / (t / s2 + 1 / evidence.prior.gap_variance)
    z = (t * gap + r * v * t * gap / s2) / np.sqrt(r * s2 + r**2 * v)
    risks: Floats = np.nan_to_num(stdtr(evidence.freedom[ahead, behind], -z), nan=1.0)
    return risks


def _drop(contenders: Contenders, risks: Floats, first: int, limit: float) -> Contenders:
    """Without the rivals that are least likely to win, as many as the limit allows; the strongest always stays."""
    risk_spent, dropped = contenders.risk_spent, set[int]()
    order = np.argsort(risks, kind="stable")
    rivals = [int(place) for place in order if contenders.active[place] != first]
    for place in rivals[:-1]:
        if risk_spent + risks[place] > limit:
            break
        risk_spent += float(risks[place])
        dropped.add(place)
    if len(dropped) < DROP_AT_LEAST * len(contenders.active):
        return contenders
    return Contenders(tuple(i for place, i in enumerate(contenders.active) if place not in dropped), risk_spent)


def proven(values: Floats, k: int, ballot_range: float, delta: float) -> bool:
    """Whether the response with the largest sum so far has the largest sum over all k samples, up to delta.

    values: (m, n), m <= k ballots in launch order, drawn exchangeably; a sample without scores has differences of 0.
    ballot_range: how far two ballots of a sample can be apart.

    For each rival, the wealth of a bettor against "the sum of differences over all k samples is <= 0". The next
    difference d then has a conditional mean of at most m_j = -(sum so far) / (samples left), so that with bets c

        E = mean over c of prod_j (1 + c * (d_j - m_j) / (range + m_j))

    is a nonnegative supermartingale, and reaches 1/alpha with probability alpha at most (Ville). One of n - 1 leaders
    is claimed wrongly only if the bettor against the true winner got there: alpha = delta / (n - 1). Proof in
    docs/design/stopping.md.
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
        # The rest of the samples cannot take the lead away; if they can only just level it, no bet is made.
        certain |= room < 0
        wealth = wealth * np.where(room > 0, 1 + _BETS[:, None] * (step - bound) / np.where(room > 0, room, 1.0), 1.0)
        before = before + step
    certain |= before > ballot_range * (k - len(d))
    return bool(np.all(certain | (wealth.mean(axis=0) >= d.shape[1] / delta)))
