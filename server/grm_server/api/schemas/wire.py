"""The base class of all schemas."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """Unknown fields are refused: a misspelt option must not be ignored silently."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
