"""Simulated judges, for studies of voting and early stopping that need thousands of prompts.

A simulated judge scores responses as a language model does. The judge has a bias for or against each response. Each
sample has a leniency and its own principles, may notice a flaw that other samples miss, and gives an integer from 1 to
10, or a random score, or none. The parameters were fitted once. With n = 2 one sample in six of each judge is a tie.
Of the other samples one in seven (A, "clean"), six (C, "15 % noise") or four (B, "hard") contradicts the sum of 32
samples, which names the truly better response for 75, 74 and 72 % of prompts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

LOWEST, HIGHEST = 1, 10
PRINCIPLES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Parameters of a simulated judge, in points of the scale unless stated otherwise."""

    level: float
    """Mean score, before clipping to the scale."""
    merit_sd: float
    """Standard deviation of the merit of responses, which is the truth."""
    bias_sd: float
    """Standard deviation of the judge's bias for a response, which does not average out over samples."""
    leniency_sd: float
    """Standard deviation of a sample's leniency, which is the same for all its responses."""
    principle_sd: float
    """Standard deviation over samples of the effect of their principles on one response."""
    principle_correlation: float
    """Correlation of that effect between the responses of a prompt, 0 to 1."""
    noise_sd: float
    """Standard deviation of all other noise between samples: its median over prompts."""
    noise_spread: float
    """Standard deviation over prompts of the log of `noise_sd`: some prompts are harder to judge than others."""
    flaw_depth: float
    """Points that the flaw of one response per prompt costs it in the samples that notice it."""
    flaw_seen: float
    """Fraction of samples that notice the flaw."""
    garbage: float
    """Fraction of samples with uniform random scores."""
    missing: float
    """Fraction of samples that cannot be parsed."""


CLEAN = Judge(
    level=6.4,
    merit_sd=1.02,
    bias_sd=1.01,
    leniency_sd=0.5,
    principle_sd=0.6,
    principle_correlation=0.5,
    noise_sd=0.7,
    noise_spread=0.35,
    flaw_depth=1.4,
    flaw_seen=0.2,
    garbage=0.02,
    missing=0.03,
)
NOISY = replace(CLEAN, garbage=0.10, missing=0.05)
HARD = replace(NOISY, merit_sd=0.68, bias_sd=0.73, noise_sd=1.1)
JUDGES = {"A": CLEAN, "B": HARD, "C": NOISY}


@dataclass(frozen=True, slots=True)
class SimulatedScores:
    scores: NDArray[np.float64]
    """(prompts, k, n), in launch order; a sample that cannot be parsed is a row of NaN."""
    best: NDArray[np.intp]
    """(prompts,): the response with the highest merit."""


def simulate(judge: Judge, n: int, k: int, prompts: int, rng: np.random.Generator) -> SimulatedScores:
    """k samples of the judge on n responses to each prompt."""
    merit = rng.normal(0, judge.merit_sd, (prompts, 1, n))
    bias = rng.normal(0, judge.bias_sd, (prompts, 1, n))
    leniency = rng.normal(0, judge.leniency_sd, (prompts, k, 1))
    noise_sd = judge.noise_sd * np.exp(rng.normal(0, judge.noise_spread, (prompts, 1, 1)))
    noise = noise_sd * rng.standard_normal((prompts, k, n))
    flawed = rng.integers(n, size=(prompts, 1, 1)) == np.arange(n)
    flaw = judge.flaw_depth * (flawed & (rng.random((prompts, k, 1)) < judge.flaw_seen))
    raw = judge.level + merit + bias + leniency + _principles(judge, n, k, prompts, rng) + noise - flaw
    scores = np.clip(np.rint(raw), LOWEST, HIGHEST)
    uniform = rng.random((prompts, k))
    garbage = uniform < judge.garbage
    scores[garbage] = rng.integers(LOWEST, HIGHEST + 1, (np.count_nonzero(garbage), n))
    scores[uniform >= 1 - judge.missing] = np.nan
    return SimulatedScores(scores, merit[:, 0].argmax(axis=1))


def _principles(judge: Judge, n: int, k: int, prompts: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(prompts, k, n): the effect of a sample's principles on each response."""
    shared = rng.standard_normal((prompts, 1, PRINCIPLES))
    own = rng.standard_normal((prompts, n, PRINCIPLES))
    rho = judge.principle_correlation
    loadings = np.sqrt(rho) * shared + np.sqrt(1 - rho) * own
    drawn = rng.standard_normal((prompts, k, PRINCIPLES))
    effect: NDArray[np.float64] = judge.principle_sd / np.sqrt(PRINCIPLES) * (drawn @ loadings.transpose(0, 2, 1))
    return effect
