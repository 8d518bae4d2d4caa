"""What is known of a meta RM: `meta_rm.json` beside its weights, written by who trained it and read by the server."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FILE = "meta_rm.json"
GATE = 0.55
"""The within-prompt AUC under which a meta RM is no help: in simulations, weights by a weaker one improve no vote."""


class _Part(BaseModel):
    # Of a newer version's card what is known here is read.
    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Baselines(_Part):
    """Within-prompt AUC, on the same prompts, of what needs no meta RM."""

    length: float
    """Of the lengths of principles, critique and responses. A meta RM that is no better has learnt to count."""
    scores: float
    """Of the sample's own scores: margin, level, position of the best, tie."""
    logits: float | None = None
    """Of the judge's probabilities of these scores. None where the data do not have them."""


class Measured(_Part):
    """How well right trajectories are told from wrong ones of the same request, on held-out prompts."""

    auc: float
    """Mean over requests that have both of the share of (right, wrong) pairs ranked rightly; a coin has 0.5."""
    auc_interval: tuple[float, float]
    """95 %, bootstrapped over requests."""
    informative: int
    """Requests that have both."""
    baselines: Baselines


class MetaCard(Measured):
    """Holds for the judge, template and data that it was measured with."""

    untied: Measured | None = None
    """The same without the trajectories that give two responses the highest score. These are wrong by definition and
    add nothing to a vote of two responses, so what a meta RM gains by spotting them is worth little. None where too few
    others are left."""
    platt: tuple[float, float]
    """a, b: the probability that a trajectory is right, if it prefers one response, is sigmoid(a * logit + b)."""
    ece: float
    """Expected calibration error of that probability, on held-out prompts."""
    prompts: int
    """All of the data, held-out ones included."""
    trajectories: int
    data: str
    """Name of the data."""
    base: str
    """Name of the model that it was made from."""
    judge: str
    """Name of the model that wrote the trajectories."""
    method: Literal["head", "full"]
    """A head on frozen features, or all weights trained."""
    layers: int = Field(ge=1)
    """Of the base that are left."""
    gate: float = GATE
    seed: int
    held_out: float
    """Share of prompts that chose nothing; with the seed it tells which (training.split)."""
    template_sha256: str
    """Of the template that it was trained with. Under another one nothing of this is known to hold."""
    version: str
    """Of GRM Server."""

    @property
    def shortfalls(self) -> tuple[str, ...]:
        """Why it should not guide votes unless told to; empty if nothing speaks against it."""
        found = []
        for measured, where in ((self, ""), (self.untied, " without ties")):
            if measured is None:
                continue
            if measured.auc < self.gate:
                found.append(f"within-prompt AUC{where} {measured.auc:.3f} is below {self.gate}")
            elif measured.auc <= measured.baselines.length:
                found.append(
                    f"within-prompt AUC{where} {measured.auc:.3f} is no better than that of lengths alone, "
                    f"{measured.baselines.length:.3f}"
                )
        return tuple(found)

    @property
    def passes(self) -> bool:
        return not self.shortfalls


def load_card(folder: Path) -> MetaCard | None:
    """The card of a checkpoint; None where it has none, as one that others trained, or where there is no such folder.

    Raises OSError, and ValueError for a file that is no card.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return MetaCard.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{path} is not what `grm train-meta-rm` writes: {where}: {first['msg']}") from None


def save_card(card: MetaCard, folder: Path) -> None:
    (folder / FILE).write_text(card.model_dump_json(indent=1) + "\n", "utf-8")


def template_digest(source: str) -> str:
    """What `MetaCard.template_sha256` is."""
    return hashlib.sha256(source.encode()).hexdigest()
