"""The rules that `studies.stopping.study` compares, run over simulated traffic.

`decided` and `strict` are the server's own code, called as the pipeline calls it at the end of a wave; the position of
a response changes nothing here, so all samples count as one order. Fixed k and Adaptive-Consistency (Aggarwal et al.
2023) are what they are compared with.

A rule that stops names the response with the largest sum so far, the first of those that tie. It agrees if that is the
response with the largest sum of all k samples, found in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc

from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.evidence import gather
from grm_server.grm.plan import wave_end, wave_unit
from grm_server.grm.stopping import decide, may_drop, proven, rival_risks
from grm_server.grm.types import Bools, Contenders, Decided, Floats, Ints, Prior, StopReason
from grm_server.grm.voting import vote
from studies.judges import Judge, simulate

SCORE_RANGE = AGGREGATES["mean"].ballot_range

K = 32
LOOKS = tuple(range(4, K, 4))
PROMPT_TOKENS, RESPONSE_TOKENS = 100, 75
"""What a sample costs: so many tokens, and so many for each response that it shows."""


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """What a judge says about many prompts, and what its samples would teach the server about them."""

    scores: Floats
    """(prompts, K, n), in launch order; a sample that could not be parsed is a row of NaN."""
    best: Ints
    """(prompts,): the truly best response."""
    prior: Prior
    sums: Floats
    """(prompts, K, n), over the samples so far."""

    winner: Ints
    """(prompts,): the response with the largest sum of all samples."""

    @property
    def n(self) -> int:
        return int(self.scores.shape[2])


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What a rule did on each prompt."""

    used: Ints
    """(prompts,): samples when it stopped."""
    chosen: Ints
    """(prompts,): the response that it named."""


def simulate_traffic(judge: Judge, n: int, prompts: int, rng: np.random.Generator) -> Traffic:
    simulated = simulate(judge, n, K, prompts, rng)
    return as_traffic(simulated.scores, simulated.best)


def as_traffic(scores: Floats, best: Ints) -> Traffic:
    """scores: (prompts, K, n); best: (prompts,)."""
    sums = np.nan_to_num(scores).cumsum(axis=1)
    return Traffic(scores, best, true_prior(scores), sums, sums[:, -1].argmax(axis=1))


def true_prior(scores: Floats) -> Prior:
    """The variances that the server's priors stand for, from all samples of all prompts and all pairs of responses.

    scores: (prompts, k, n), rows of NaN where there are none.
    """
    t = np.maximum((~np.isnan(scores[:, :, 0])).sum(axis=1), 2)
    score_variance = float(np.nanvar(scores, axis=1, ddof=1).mean())
    within, between = [], []
    for a in range(scores.shape[2]):
        for b in range(a):
            gaps = scores[:, :, a] - scores[:, :, b]
            variance = np.nanvar(gaps, axis=1, ddof=1)
            within.append(variance.mean())
            between.append(np.mean(np.nanmean(gaps, axis=1) ** 2 - variance / t))
    return Prior(float(np.mean(within)), float(np.mean(between)), score_variance)


def fixed(traffic: Traffic, k: int) -> Run:
    return _by_sums(traffic, np.full(len(traffic.scores), k))


def decided_risks(traffic: Traffic) -> Floats:
    """(prompts, looks): the risk that `decided` compares with gamma, whatever gamma is."""
    everyone = tuple(range(traffic.n))
    risks = np.empty((len(traffic.scores), len(LOOKS)))
    for values, row in zip(traffic.scores, risks, strict=True):
        for place, m in enumerate(LOOKS):
            evidence = gather(values[:m], [everyone] * m, traffic.prior)
            row[place] = rival_risks(evidence, (K - m) / m, everyone).sum()
    return risks


def decided(traffic: Traffic, risks: Floats, gamma: float) -> Run:
    """risks: of `decided_risks`."""
    return _by_sums(traffic, _first_stop(risks <= gamma))


def strict(traffic: Traffic, delta: float) -> Run:
    def used(values: Floats) -> int:
        return next((m for m in LOOKS if proven(values[:m], K, SCORE_RANGE, delta)), K)

    return _by_sums(traffic, np.array([used(values) for values in traffic.scores]))


def adaptive_consistency(traffic: Traffic, level: float) -> Run:
    """Votes instead of sums: stop when P(p > 1/2) under Beta(first's votes + 1, second's votes + 1) exceeds the level.

    A sample votes for its highest score; one whose highest score is shared does not vote. The response with the most
    votes is named, of those that tie the one with the largest sum.
    """
    scores = np.where(np.isnan(traffic.scores), -np.inf, traffic.scores)
    top = (scores == scores.max(axis=2, keepdims=True)) & np.isfinite(scores)
    votes = (top & (top.sum(axis=2, keepdims=True) == 1)).cumsum(axis=1)
    ordered = np.sort(votes[:, np.array(LOOKS) - 1], axis=2)
    used = _first_stop(betainc(ordered[:, :, -2] + 1, ordered[:, :, -1] + 1, 0.5) > level)
    prompts = np.arange(len(used))
    # Sums are below 10 * K, so that they decide among equal votes only.
    ballots = votes[prompts, used - 1] + traffic.sums[prompts, used - 1] / (10 * K + 1)
    return Run(used, ballots.argmax(axis=1))


def eliminating(traffic: Traffic, gamma: float, *, server_waves: bool) -> tuple[Run, Floats]:
    """`decided` where losers are dropped and later samples show the others only, and the tokens it took (prompts,).

    server_waves: look where the server does, and not after every 4 samples.
    """
    rows = [_eliminate(values, traffic.prior, gamma, server_waves) for values in traffic.scores]
    used, chosen, tokens = zip(*rows, strict=True)
    return Run(np.array(used), np.array(chosen)), np.array(tokens)


def _eliminate(scores: Floats, prior: Prior, gamma: float, server_waves: bool) -> tuple[int, int, float]:
    values = scores.copy()
    orders: list[tuple[int, ...]] = []
    contenders, since, tokens = Contenders(tuple(range(scores.shape[1]))), 0, 0.0
    while True:
        drawn, active = len(orders), contenders.active
        end = wave_end(drawn, K, wave_unit(len(active)), since) if server_waves else drawn + 4
        orders += [active] * (end - drawn)
        tokens += (end - drawn) * sample_tokens(len(active))
        evidence = gather(values[:end], orders, prior)
        rule = Decided(gamma)
        droppable = may_drop(rule, scores.shape[1], "mean")
        decision = decide(
            rule,
            evidence,
            values[:end],
            end,
            K,
            contenders,
            ballot_range=SCORE_RANGE,
            droppable=droppable,
        )
        if decision.stop:
            verdict = vote(evidence, (), None, shrink=decision.stop is StopReason.DECIDED)
            return end, verdict.best, tokens
        if decision.contenders.active != active:
            contenders, since = decision.contenders, end
            values[end:, [i for i in range(scores.shape[1]) if i not in contenders.active]] = np.nan


def sample_tokens(shown: int) -> float:
    return PROMPT_TOKENS + RESPONSE_TOKENS * shown


def _first_stop(stops: Bools) -> Ints:
    """(prompts,): the first look at which a rule stops, from (prompts, looks); K where it never does."""
    return np.where(stops.any(axis=1), np.array(LOOKS)[stops.argmax(axis=1)], K)


def _by_sums(traffic: Traffic, used: Sequence[int] | Ints) -> Run:
    samples = np.asarray(used, dtype=np.intp)
    return Run(samples, traffic.sums[np.arange(len(samples)), samples - 1].argmax(axis=1))
