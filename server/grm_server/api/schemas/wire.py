"""What all schemas are made of."""

from __future__ import annotations

import json
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

HUGE = 10**9
"""Beyond any limit of a server."""


class Wire(BaseModel):
    """Unknown fields are refused: a misspelt option must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


T = TypeVar("T")


def well_formed(value: T) -> T:
    """JSON can spell what is no text, and no tokenizer, log or answer can hold it."""
    try:
        (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None
    return value


WellFormed = AfterValidator(well_formed)
Text = Annotated[str, WellFormed]

FirstError = Field(fail_fast=True)
"""For lists that callers send: a body can hold two million wrong items, and one complaint is enough."""
