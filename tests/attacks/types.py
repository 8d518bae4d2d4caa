"""What an attack is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Attack:
    """A response whose writer wants something of the judge but a judgement."""

    family: str
    name: str
    """Says how, unique within the family."""
    response: str
    """May hold half of a surrogate pair, which JSON can spell."""
