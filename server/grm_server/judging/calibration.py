"""The file that `grm calibrate` writes and `grm serve` reads, and how it is found from labelled answers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from grm_server.grm.calibration import MIN_LABELS, expected_calibration_error, fit, p_label
from grm_server.judging.labels import Answers

BINS = 5
"""Of the report. The expected calibration error has its own."""


class Calibration(BaseModel):
    """What a judge's own certainty is worth against labels. Holds for the model, prompt and data it was fitted on."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    model: str
    """As the server names it; for another model the calibration says nothing and is not used."""
    tau: float = Field(gt=0)
    """See `grm.calibration`: the temperature is tau * sqrt(k_used), at least 1."""
    labels: int
    k_used: float
    """Mean over the labelled requests."""
    accuracy: float
    """Share of the labelled requests whose best response by reward is the labelled one."""
    ece_judge: float
    """Expected calibration error of `p_best` of the best response, against the labels."""
    ece_label: float
    """The same of `p_best_label`, each half of the labels judged by the temperature of the other half."""


def load_calibration(path: Path) -> Calibration:
    """Raises OSError or ValueError."""
    return Calibration.model_validate_json(path.read_bytes())


class Bin(NamedTuple):
    """The requests whose best response was given a probability in one range."""

    requests: int
    right: float
    """Share of them whose best response is the labelled one; nan without any."""


@dataclass(frozen=True, slots=True)
class Report:
    calibration: Calibration
    judge: tuple[Bin, ...]
    """(BINS,), by `p_best`, equally wide from 0 to 1."""
    label: tuple[Bin, ...]
    """(BINS,), by `p_best_label`, as in `Calibration.ece_label`."""


def calibrate(answers: Answers) -> Report:
    """Fit the temperature and see how far it holds on labels that it was not fitted on.

    Raises ValueError for fewer than 300 labels.
    """
    labelled = answers.labelled
    if len(labelled) < MIN_LABELS:
        raise ValueError(f"{len(labelled)} labels are too few to calibrate on; {MIN_LABELS} are needed")
    tau = fit(labelled)
    halves = labelled[::2], labelled[1::2]
    taus = [fit(half) for half in halves]
    # In the order of the halves, each with the other one's.
    judge, label, right = [], [], []
    for half, other in zip(halves, reversed(taus), strict=True):
        for item in half:
            judge.append(max(item.p_best))
            label.append(max(p_label(item, other)))
            right.append(item.p_best.index(judge[-1]) == item.label)
    return Report(
        Calibration(
            model=answers.model,
            tau=tau,
            labels=len(labelled),
            k_used=fmean(item.k_used for item in labelled),
            accuracy=answers.right / len(labelled),
            ece_judge=expected_calibration_error(judge, right),
            ece_label=expected_calibration_error(label, right),
        ),
        _bins(judge, right),
        _bins(label, right),
    )


def _bins(said: Sequence[float], right: Sequence[bool]) -> tuple[Bin, ...]:
    places = [min(int(p * BINS), BINS - 1) for p in said]
    members = ([hit for place, hit in zip(places, right, strict=True) if place == b] for b in range(BINS))
    return tuple(Bin(len(hits), fmean(hits) if hits else math.nan) for hits in members)


def as_text(report: Report) -> str:
    """A report for people: how often the best response is the labelled one, by the probability it was given."""
    found = report.calibration
    rows = ["probability of the best    right, by p_best    right, by p_best_label"]
    for place, parts in enumerate(zip(report.judge, report.label, strict=True)):
        given = f"{place * 100 // BINS} to {(place + 1) * 100 // BINS} %"
        shares = (f"{part.right:.0%} of {part.requests}" if part.requests else "-" for part in parts)
        rows.append("{:24}{:>19}{:>26}".format(given, *shares))
    rows.append(f"{'calibration error':24}{found.ece_judge:19.3f}{found.ece_label:26.3f}")
    rows.append(f"accuracy {found.accuracy:.1%}, tau {found.tau:.3f}, k {found.k_used:.1f} on average")
    return "\n".join(rows)
