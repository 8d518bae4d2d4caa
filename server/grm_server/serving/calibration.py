"""The file that `grm calibrate` writes and `grm serve` reads."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


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
