"""Work on long texts, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONG = 2**16
"""Letters. Python goes through so many in some 50 ms."""


async def run_in_thread_if_large(chars: int, work: Callable[[], T]) -> T:
    """What `work` returns, which goes through so many letters: in a thread, if others would have to wait for it."""
    return work() if chars < LONG else await asyncio.to_thread(work)
