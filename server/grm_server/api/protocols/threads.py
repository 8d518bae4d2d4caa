"""Work on long texts outside of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONG_CHARS = 2**16
"""Python code that visits each character takes about 50 ms for this many."""


async def run_in_thread_if_large(chars: int, work: Callable[[], T]) -> T:
    """The result of `work`, which visits so many characters. Long work runs in a thread: it would block the event loop
    for all other requests."""
    return work() if chars < LONG_CHARS else await asyncio.to_thread(work)
