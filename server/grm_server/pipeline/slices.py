"""Run long work on the event loop without holding it up."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from grm_server.grm.slices import SLICE_CHARS, Slices

T = TypeVar("T")


async def in_slices(slices: Slices[T]) -> T:
    """The result of the work. We yield to the event loop whenever it has visited `SLICE_CHARS` characters.

    A thread would not do: a search with a regular expression holds the GIL to its end.
    """
    visited = 0
    while True:
        try:
            visited += next(slices)
        except StopIteration as finished:
            result: T = finished.value
            return result
        if visited >= SLICE_CHARS:
            visited = 0
            await asyncio.sleep(0)
