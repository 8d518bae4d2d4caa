"""The measurements on a meta RM's card, from its logits. Pure except for sklearn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from grm_server.grm.types import Bools, Floats, Ints
from grm_server.meta_rm.card import Baselines, Measured
from grm_train.meta_rm.baselines import length_features, logit_features, score_features
from grm_train.meta_rm.head import AnyFloats, Examples, choose, platt
from grm_train.meta_rm.quality import calibration_error, group_aucs, informative, interval, probabilities
from grm_train.meta_rm.split import Part, part_of
from grm_train.meta_rm.trajectories import Trajectory

MIN_INFORMATIVE = 10
"""Minimum number of requests with both right and wrong trajectories for a meaningful AUC."""


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """Trajectories as columns, each with its part of the data."""

    trajectories: tuple[Trajectory, ...]
    right: Bools
    groups: Ints
    tied: Bools
    parts: tuple[Part, ...]
    seed: int

    def where(self, part: Part) -> Ints:
        """Indices of the part's trajectories."""
        return np.flatnonzero(np.array(self.parts) == part)

    def examples(self, features: AnyFloats, part: Part) -> Examples:
        """features: (m, layers, d), of all trajectories."""
        where = self.where(part)
        return Examples(features[where], self.right[where], self.groups[where])


def tabulate(trajectories: Sequence[Trajectory], seed: int) -> Table:
    """Raises ValueError if a part of the data is too small to measure on."""
    table = Table(
        tuple(trajectories),
        np.array([t.right for t in trajectories], dtype=np.bool_),
        np.array([t.line for t in trajectories], dtype=np.intp),
        np.array([t.tied for t in trajectories], dtype=np.bool_),
        tuple(part_of(t.query, seed) for t in trajectories),
        seed,
    )
    for part in get_args(Part):
        where = table.where(part)
        usable = informative(table.right[where], table.groups[where])
        if usable < MIN_INFORMATIVE:
            raise ValueError(
                f"the {part} split has {usable} prompts with both right and wrong trajectories; {MIN_INFORMATIVE} are "
                "needed: collect more requests, or more trajectories of each (grm collect -n 8)"
            )
        if part != "train" and len(set(table.right[where[~table.tied[where]]].tolist())) < 2:
            raise ValueError(
                f"in the {part} split, all trajectories without a tie are right, or all are wrong: collect more "
                "requests"
            )
    return table


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """Measured on the test prompts, which were not used for training or selection."""

    all: Measured
    untied: Measured | None
    platt: tuple[float, float]
    ece: float


def measure(table: Table, logits: Floats) -> Quality:
    """logits: (m,). The baselines are fitted and chosen on the same prompts as the head."""
    selection, test = table.where("selection"), table.where("test")
    # Fit the Platt scale without ties. The p of a tie changes no vote, and ties are so many that they would pull down p
    # of all others, which would then hardly vote.
    selection, untied = (part[~table.tied[part]] for part in (selection, test))
    scale = platt(logits[selection], table.right[selection])
    baselines = {
        name: _baseline(table, features)
        for name, read in (("length", length_features), ("scores", score_features), ("logits", logit_features))
        if (features := read(table.trajectories)) is not None
    }
    everything = _measured(table, test, logits, baselines)
    assert everything is not None
    return Quality(
        everything,
        _measured(table, untied, logits, baselines),
        scale,
        calibration_error(probabilities(logits[untied], scale), table.right[untied]),
    )


def _baseline(table: Table, features: Floats) -> Floats:
    """(m,), the logits of the best head on `features`, (m, d)."""
    as_layer = features[:, None]
    head = choose(table.examples(as_layer, "train"), table.examples(as_layer, "selection"), table.seed)
    logits: Floats = features @ head.weight
    return logits


def _measured(table: Table, where: Ints, logits: Floats, baselines: Mapping[str, Floats]) -> Measured | None:
    """None if too few requests have both right and wrong trajectories."""
    right, groups = table.right[where], table.groups[where]
    aucs = group_aucs(logits[where], right, groups)
    if len(aucs) < MIN_INFORMATIVE:
        return None
    return Measured(
        auc=float(aucs.mean()),
        auc_interval=interval(aucs, table.seed),
        informative=len(aucs),
        baselines=Baselines(
            **{name: float(group_aucs(values[where], right, groups).mean()) for name, values in baselines.items()}
        ),
    )
