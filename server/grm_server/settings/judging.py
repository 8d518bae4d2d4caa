"""What a request gets that does not say: how it is judged, and when that is enough."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from grm_server.settings.names import AggregateName, RuleName
from grm_server.settings.section import Section


class JudgeSettings(Section):
    k: int = Field(16, ge=1)
    """Readings of each response, at most, of a request that does not say."""
    temperature: float = Field(0.5, gt=0, le=2)
    """Sampling temperature of a request that does not say. The paper's voting results use 0.5."""
    max_critique_tokens: int | None = Field(None, ge=16)
    """Budget of principles and critique of a request that does not say. None: 1024, or 192 for the bundled model."""
    aggregate: AggregateName = "mean"
    """How samples are added up in a request that does not say. The last two need a meta RM."""
    principles_from: Literal["sample", "query"] = "sample"
    """In a request that does not say: each sample writes its own principles, or they are drawn once for a query and
    used for all its judgements."""
    list_size: int = Field(8, ge=2)
    """Responses that one sample judges at most; longer lists are judged in balanced blocks."""
    template: Path | None = None
    """A file with a prompt template of your own (Jinja). None: the one that the package ships."""


class StoppingSettings(Section):
    rule: RuleName = "decided"
    """When to stop before k, in a request that does not say."""
    gamma: float = Field(0.05, gt=0, lt=1)
    """`decided`: stop when k samples would decide otherwise with at most this predicted probability."""
    delta: float = Field(0.05, gt=0, lt=1)
    """`strict`: stop when the best response is certain up to this probability of error."""
    se: float = Field(0.4, gt=0)
    """`precision`: stop when no reward's standard error is above this."""
    speculate_below: int = Field(8, ge=0)
    """While the engine has fewer samples than this to write, a request's next wave begins before it is known to be
    needed. 0: never."""
    audit_share: float = Field(0.015, ge=0, le=1)
    """Share of requests that, when `decided` stops them, are drawn to full k in the background to see if that was
    right."""
    priors: Path | None = None
    """Where what traffic teaches is kept; one file for each server. None: priors.json in `cache_dir`."""
    calibration: Path | None = None
    """What `grm calibrate` wrote. With it answers have `p_best_label`."""
