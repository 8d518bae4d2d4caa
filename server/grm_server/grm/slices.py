"""Long work in slices. The method does no I/O, so its caller decides what happens between two slices: an event loop
answers other requests."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Slices = Generator[int, None, T]
"""Work that pauses often. It yields the number of characters that it visited since its last pause, and returns its
result."""

SLICE_CHARS = 2**13
"""Characters to visit between two pauses. Python code that visits each of them takes 10 to 30 ms."""
