"""Checks whether the stopping rules keep their promises, with the server's own code, for `studies.stopping.study`.

`strict` must not err more often than delta, even on adversarial populations of scores. The risk that `decided` predicts
must equal the rate at which all samples decide otherwise. The margins and probabilities that the server reports after
an early stop must match many fresh samples of the same judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from grm_server.grm.calibration import expected_calibration_error
from grm_server.grm.evidence import gather
from grm_server.grm.types import Bools, Floats, Prior, Verdict
from grm_server.grm.voting import vote
from studies.judges import Judge, simulate
from studies.stopping.rules import LOOKS, K, Run, Traffic, as_traffic, decided, decided_risks, strict

POPULATIONS: dict[str, tuple[int, ...]] = {
    "26 x +2, 6 x -9": (2,) * 26 + (-9,) * 6,
    "28 x +1, 4 x -7": (1,) * 28 + (-7,) * 4,
    "16 x +1, 16 x -1": (1,) * 16 + (-1,) * 16,
    "31 x +1, 1 x -9": (1,) * 31 + (-9,),
    "20 x +3, 12 x -5": (3,) * 20 + (-5,) * 12,
}
"""Score differences between two responses in all K samples. The first response wins at least half of the samples, but
only in the fourth population does it also have the larger sum."""

RISK_LOOKS = (4, 8, 16)
RISK_BINS = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)

FRESH = 512
"""Number of samples used as the truth, in place of infinitely many."""
HONEST_AT = (4, 8, 32)


@dataclass(frozen=True, slots=True)
class RiskBin:
    predicted: float
    observed: float
    looks: int


@dataclass(frozen=True, slots=True)
class Margins:
    """Mean margin (first - second) over prompts, in points: of mean scores, of posterior means, of FRESH samples."""

    raw: float
    posterior: float
    true: float
    prompts: int


@dataclass(frozen=True, slots=True)
class Honesty:
    """The server's answers compared with FRESH samples."""

    at_4: Margins
    """For the prompts on which `decided` stopped at 4 samples."""
    all: Margins
    claimed: float
    """Mean p_best of the named response after `decided`."""
    right: float
    """Share of prompts for which the FRESH samples name the same response."""
    ece: dict[int, float]
    """Expected calibration error of p_best at a fixed k."""
    coverage: dict[int, float]
    """Share of rewards within 1.645 standard errors of the FRESH samples' mean at a fixed k. Normal errors give 0.9."""


def deceive(differences: Sequence[int], orderings: int, rng: np.random.Generator, prior: Prior) -> Traffic:
    """Traffic from one population of differences in random launch orders, with a given prior."""
    d = rng.permuted(np.tile(differences, (orderings, 1)), axis=1)
    scores = 1.0 + np.stack([np.maximum(d, 0), np.maximum(-d, 0)], axis=2)
    traffic = as_traffic(scores, np.zeros(orderings, dtype=np.intp))
    return Traffic(scores, traffic.best, prior, traffic.sums, traffic.winner)


def strict_errors(traffic: Traffic, delta: float) -> tuple[float, float]:
    """Share of prompts on which it stops early for a response without the larger sum over all samples; mean samples."""
    run = strict(traffic, delta)
    return float(_wrong(traffic, run).mean()), float(run.used.mean())


def decided_errors(traffic: Traffic, gamma: float, first_look: int) -> float:
    """The same share for `decided`, with a first look after `first_look` samples."""
    risks = decided_risks(traffic)
    risks[:, [m < first_look for m in LOOKS]] = 1.0
    return float(_wrong(traffic, decided(traffic, risks, gamma)).mean())


def _wrong(traffic: Traffic, run: Run) -> Bools:
    sums = traffic.sums[:, -1]
    prompts = np.arange(len(sums))
    # A tie counts as wrong, since `strict` claims that the leader's sum is larger.
    wrong: Bools = (run.used < K) & (sums[prompts, run.chosen] <= sums[prompts, 1 - run.chosen])
    return wrong


def risk_bins(traffics: Sequence[Traffic], risks: Sequence[Floats]) -> list[RiskBin]:
    """Predicted and observed disagreement with all samples, pooled over the looks RISK_LOOKS."""
    predicted, observed = [], []
    for traffic, risk in zip(traffics, risks, strict=True):
        for m in RISK_LOOKS:
            predicted.append(risk[:, LOOKS.index(m)])
            observed.append(traffic.sums[:, m - 1].argmax(axis=1) != traffic.winner)
    p, y = np.concatenate(predicted), np.concatenate(observed)
    places = np.digitize(p, RISK_BINS) - 1
    inside = [places == b for b in range(len(RISK_BINS))]
    return [RiskBin(float(p[x].mean()), float(y[x].mean()), int(x.sum())) for x in inside if x.any()]


def honesty(judge: Judge, prompts: int, gamma: float, rng: np.random.Generator) -> Honesty:
    simulated = simulate(judge, 2, K + FRESH, prompts, rng)
    # Leave out prompts for which no sample of the first wave has scores: the server does not answer them.
    answered = ~np.isnan(simulated.scores[:, : HONEST_AT[0], 0]).all(axis=1)
    traffic = as_traffic(simulated.scores[answered, :K], simulated.best[answered])
    truth = np.nanmean(simulated.scores[answered, K:], axis=1)
    prompts = len(truth)
    used = decided(traffic, decided_risks(traffic), gamma).used
    stopped = [_answer(traffic, prompt, m, shrink=m < K) for prompt, m in enumerate(used)]
    raw = np.array([_margin(np.nanmean(v[:m], axis=0)) for v, m in zip(traffic.scores, used, strict=True)])
    posterior = np.array([_margin(verdict.rewards) for verdict in stopped])
    best = np.array([verdict.best for verdict in stopped])
    lead = truth[np.arange(prompts), best] - truth[np.arange(prompts), 1 - best]

    def margins(where: Bools) -> Margins:
        means = [float(x[where].mean()) for x in (raw, posterior, lead)]
        return Margins(means[0], means[1], means[2], int(where.sum()))

    ece, coverage = {}, {}
    for m in HONEST_AT:
        answers = [_answer(traffic, prompt, m, shrink=False) for prompt in range(prompts)]
        right = [truth[prompt].argmax() == a.best for prompt, a in enumerate(answers)]
        ece[m] = expected_calibration_error([max(a.p_best) for a in answers], right)
        off = np.abs(np.array([a.rewards for a in answers]) - truth)
        coverage[m] = float((off <= 1.645 * np.array([a.se for a in answers])).mean())
    claimed = float(np.mean([max(verdict.p_best) for verdict in stopped]))
    return Honesty(margins(used == 4), margins(used > 0), claimed, float((lead > 0).mean()), ece, coverage)


def _margin(of_two: Sequence[float] | Floats) -> float:
    return float(abs(of_two[0] - of_two[1]))


def _answer(traffic: Traffic, prompt: int, m: int, *, shrink: bool) -> Verdict:
    """The server's verdict after m samples of a prompt."""
    evidence = gather(traffic.scores[prompt, :m], [(0, 1)] * m, traffic.prior)
    return vote(evidence, (), None, shrink=shrink)
