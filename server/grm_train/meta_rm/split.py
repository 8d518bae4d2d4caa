"""Which part of the data a prompt belongs to: by its text, so that no prompt is on both sides."""

from __future__ import annotations

import hashlib
from typing import Literal

Part = Literal["train", "selection", "test"]
SELECTION = 0.2
"""Share of prompts that choose among heads and calibrate."""
HELD_OUT = 0.2
"""Share of prompts that only measure."""


def part_of(query: str, seed: int) -> Part:
    """query: digest of its text. The same for the same text and seed, whatever else the data hold."""
    digest = hashlib.sha256(f"{seed} {query}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if place < HELD_OUT else "selection" if place < HELD_OUT + SELECTION else "train"
