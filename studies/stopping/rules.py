"""The rules that `studies.stopping.study` compares, applied to simulated traffic.

`decided` and `strict` are the server's own code, called as the pipeline calls it at the end of a wave. The simulated
judges have no position effect, so all samples count as one order. Fixed k and Adaptive-Consistency (Aggarwal et al.
2023) are the baselines.

A rule that stops names the response with the largest sum so far; among ties, the first. It agrees if all k samples
name the same response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc

from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.evidence import gather
from grm_server.grm.plan import wave_end, wave_unit
from grm_server.grm.stopping import Decided, decide, may_drop, proven, rival_risks
from grm_server.grm.types import Bools, Contenders, Floats, Ints, Prior, StopReason
from grm_server.grm.voting import vote
from studies.judges import Judge, simulate

SCORE_RANGE = AGGREGATES["mean"].ballot_range

K = 32
LOOKS = tuple(range(4, K, 4))
PROMPT_TOKENS, RESPONSE_TOKENS = 100, 75
"""Tokens of a sample: a constant, and an amount for each response that it shows."""


@dataclass(frozen=True, slots=True, eq=False)
class Traffic:
    """A judge's scores for many prompts, and the prior that the server would learn from them."""

    scores: Floats
    """(prompts, K, n), in launch order; a sample that cannot be parsed is a row of NaN."""
    best: Ints
    """(prompts,): the truly best response."""
    prior: Prior
    sums: Floats
    """(prompts, K, n), cumulative over the samples."""
    winner: Ints
    """(prompts,): the response with the largest sum of all samples."""

    @property
    def n(self) -> int:
        return int(self.scores.shape[2])


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Results of a rule on each prompt."""

    used: Ints
    """(prompts,): number of samples drawn."""
    chosen: Ints
    """(prompts,): the response named."""


def simulate_traffic(judge: Judge, n: int, prompts: int, rng: np.random.Generator) -> Traffic:
    simulated = simulate(judge, n, K, prompts, rng)
    return as_traffic(simulated.scores, simulated.best)


def as_traffic(scores: Floats, best: Ints) -> Traffic:
    """scores: (prompts, K, n); best: (prompts,)."""
    sums = np.nan_to_num(scores).cumsum(axis=1)
    return Traffic(scores, best, true_prior(scores), sums, sums[:, -1].argmax(axis=1))


def true_prior(scores: Floats) -> Prior:
    """The variances that the server's priors estimate, from all samples of all prompts and all pairs of responses.

    scores: (prompts, k, n); a sample without scores is a row of NaN.
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
    """(prompts, looks): the risk that `decided` compares with gamma."""
    all_responses = tuple(range(traffic.n))
    risks = np.empty((len(traffic.scores), len(LOOKS)))
    for values, row in zip(traffic.scores, risks, strict=True):
        for place, m in enumerate(LOOKS):
            evidence = gather(values[:m], [all_responses] * m, traffic.prior)
            row[place] = rival_risks(evidence, (K - m) / m, all_responses).sum()
    return risks


def decided(traffic: Traffic, risks: Floats, gamma: float) -> Run:
    """risks: from `decided_risks`."""
    return _by_sums(traffic, _first_stop(risks <= gamma))


def strict(traffic: Traffic, delta: float) -> Run:
    def used(values: Floats) -> int:
        return next((m for m in LOOKS if proven(values[:m], K, SCORE_RANGE, delta)), K)

    return _by_sums(traffic, np.array([used(values) for values in traffic.scores]))


def adaptive_consistency(traffic: Traffic, level: float) -> Run:
    """Votes instead of sums: stop when P(p > 1/2) under Beta(first's votes + 1, second's votes + 1) exceeds the level.

    A sample votes for the response with its highest score, and abstains if that score is tied. The rule names the
    response with the most votes; among ties, the one with the largest sum.
    """
    scores = np.where(np.isnan(traffic.scores), -np.inf, traffic.scores)
    top = (scores == scores.max(axis=2, keepdims=True)) & np.isfinite(scores)
    votes = (top & (top.sum(axis=2, keepdims=True) == 1)).cumsum(axis=1)
    ordered = np.sort(votes[:, np.array(LOOKS) - 1], axis=2)
    used = _first_stop(betainc(ordered[:, :, -2] + 1, ordered[:, :, -1] + 1, 0.5) > level)
    prompts = np.arange(len(used))
    # Sums are at most 10 * K, so this fraction only breaks ties.
    ballots = votes[prompts, used - 1] + traffic.sums[prompts, used - 1] / (10 * K + 1)
    return Run(used, ballots.argmax(axis=1))


def eliminating(traffic: Traffic, gamma: float, *, server_waves: bool) -> tuple[Run, Floats]:
    """`decided` with dropping: later samples show only the remaining responses. The run, and its tokens (prompts,).

    server_waves: look at the end of the server's waves instead of after every 4 samples.
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
    """(prompts,): the first look at which a rule stops, or K if it never does. stops: (prompts, looks)."""
    return np.where(stops.any(axis=1), np.array(LOOKS)[stops.argmax(axis=1)], K)


def _by_sums(traffic: Traffic, used: Sequence[int] | Ints) -> Run:
    samples = np.asarray(used, dtype=np.intp)
    return Run(samples, traffic.sums[np.arange(len(samples)), samples - 1].argmax(axis=1))
