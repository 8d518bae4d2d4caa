"""The type of an attack."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attack:
    """A response that tries to influence the judge by other means than its quality."""

    family: str
    name: str
    """Describes the variant; unique within the family."""
    response: str
    """May contain half of a surrogate pair, which JSON can express."""
