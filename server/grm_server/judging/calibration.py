"""The file that `grm calibrate` writes and `grm serve` reads. `grm_train.calibration` fits it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class Calibration(BaseModel):
    """How far to trust a judge's own certainty, measured on labels. Valid for one model, prompt and kind of data."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    model: str
    """The judge's served name. The calibration is not used for any other model."""
    format: str = "deepseek-grm"
    """The judge's format. The calibration is not used for any other; files of earlier versions do not say it."""
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
    """Expected calibration error of `p_best_label`; each half of the labels uses the temperature fitted on the other
    half."""


def load_calibration(path: Path) -> Calibration:
    """Raises OSError or ValueError."""
    return Calibration.model_validate_json(path.read_bytes())
