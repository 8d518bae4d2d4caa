"""Fit a judge's calibration on labelled answers, and report how well it holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from grm_server.grm.calibration import MIN_LABELS, expected_calibration_error, fit, p_label
from grm_train.labels import Answers

BINS = 5
"""Bins of the report. The expected calibration error has its own."""


@dataclass(frozen=True, slots=True)
class Fit:
    """The numbers that `grm_server.judging.calibration.Calibration` explains, field by field."""

    model: str
    tau: float
    labels: int
    k_used: float
    accuracy: float
    ece_judge: float
    ece_label: float
    format: str = "deepseek-grm"


class Bin(NamedTuple):
    """The requests whose best response has a probability in one range."""

    requests: int
    right: float
    """Share of them whose best response is the labelled one; NaN if the bin is empty."""


@dataclass(frozen=True, slots=True)
class Report:
    fit: Fit
    judge: tuple[Bin, ...]
    """(BINS,), by `p_best`, equally wide from 0 to 1."""
    label: tuple[Bin, ...]
    """(BINS,), by `p_best_label`, as in `Fit.ece_label`."""


def calibrate(answers: Answers) -> Report:
    """Fit the temperature, and cross-check it: each half of the labels is judged by the fit on the other half.

    Raises ValueError for fewer than 300 labels.
    """
    labelled = answers.labelled
    if len(labelled) < MIN_LABELS:
        raise ValueError(f"{len(labelled)} labels are too few to calibrate on; {MIN_LABELS} are needed")
    halves = labelled[::2], labelled[1::2]
    taus = [fit(half) for half in halves]
    judge, label, right = [], [], []
    for half, other_tau in zip(halves, reversed(taus), strict=True):
        for item in half:
            judge.append(max(item.p_best))
            label.append(max(p_label(item, other_tau)))
            right.append(item.p_best.index(judge[-1]) == item.label)
    return Report(
        Fit(
            model=answers.model,
            tau=fit(labelled),
            labels=len(labelled),
            k_used=fmean(item.k_used for item in labelled),
            accuracy=answers.right / len(labelled),
            ece_judge=expected_calibration_error(judge, right),
            ece_label=expected_calibration_error(label, right),
            format=answers.format,
        ),
        _bins(judge, right),
        _bins(label, right),
    )


def _bins(probabilities: Sequence[float], right: Sequence[bool]) -> tuple[Bin, ...]:
    bin_of = [min(int(p * BINS), BINS - 1) for p in probabilities]
    members = ([hit for b, hit in zip(bin_of, right, strict=True) if b == index] for index in range(BINS))
    return tuple(Bin(len(hits), fmean(hits) if hits else math.nan) for hits in members)


def as_text(report: Report) -> str:
    """The report as a table: how often the best response is the labelled one, by its predicted probability."""
    rows = ["probability of the best    right, by p_best    right, by p_best_label"]
    for index, bins in enumerate(zip(report.judge, report.label, strict=True)):
        interval = f"{index * 100 // BINS} to {(index + 1) * 100 // BINS} %"
        shares = (f"{part.right:.0%} of {part.requests}" if part.requests else "-" for part in bins)
        rows.append("{:24}{:>19}{:>26}".format(interval, *shares))
    rows.append(f"{'calibration error':24}{report.fit.ece_judge:19.3f}{report.fit.ece_label:26.3f}")
    rows.append(f"accuracy {report.fit.accuracy:.1%}, tau {report.fit.tau:.3f}, k {report.fit.k_used:.1f} on average")
    return "\n".join(rows)
