"""Split the data by prompt text, so no prompt is in two parts."""

from __future__ import annotations

import hashlib
from typing import Literal

Part = Literal["train", "selection", "test"]
SELECTION = 0.2
"""Share of prompts for choosing among heads and for calibration."""
HELD_OUT = 0.2
"""Share of prompts for measurement only."""


def part_of(query: str, seed: int) -> Part:
    """query: hash of the prompt's text. The part depends on text and seed only, not on the rest of the data."""
    digest = hashlib.sha256(f"{seed} {query}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if place < HELD_OUT else "selection" if place < HELD_OUT + SELECTION else "train"
