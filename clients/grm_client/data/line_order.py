"""Lines are read one at a time, finish in any order, and are written in the order of the input.

Reader -> (the worker of a line) -> Writer

A finished row waits until all rows before it are written. A window bounds the lines that are in flight or wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import BinaryIO, NamedTuple

from grm_client.data.progress import Progress
from grm_client.data.resume import Earlier


class Line(NamedTuple):
    number: int
    """From 1."""
    text: bytes


class Reader:
    """Hands out lines one at a time, and blocks while the window is full."""

    def __init__(self, source: Iterable[bytes], window: asyncio.Semaphore) -> None:
        self._lines = iter(source)
        self._window = window
        self._lock = asyncio.Lock()
        self._ended = False
        self._number = 0

    async def next(self) -> Line | None:
        """The next line; None at the end."""
        async with self._lock:
            if self._ended:
                return None
            await self._window.acquire()
            # In a thread, because the source may be a pipe: rows must be written while the pipe is silent.
            # The cost: a run that stops while its pipe is silent only ends with the pipe's next line.
            line = await asyncio.to_thread(next, self._lines, None)
            if line is None:
                self._ended = True
                self._window.release()
                return None
            self._number += 1
            return Line(self._number, line)


class Output(NamedTuple):
    """What one line adds to the output."""

    row: bytes
    """Empty if the line has none."""
    step: Progress

    @property
    def is_new(self) -> bool:
        return not self.step.kept


class Writer:
    """Writes rows in line order, each as soon as all rows before it are written."""

    def __init__(
        self,
        out: BinaryIO,
        earlier: Earlier | None,
        window: asyncio.Semaphore,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self._out = out
        self._earlier = earlier
        self._window = window
        self._on_progress = on_progress
        self._waiting: dict[int, Output] = {}
        self.progress = Progress()

    def put(self, number: int, output: Output) -> None:
        """Add the output of a line, and write all rows that are next in order."""
        self._waiting[number] = output
        while (following := self._waiting.pop(self.progress.lines + 1, None)) is not None:
            if following.row and following.is_new:
                # One write without an await, so cancellation cannot cut a row.
                self._out.write(following.row)
                self._out.flush()
            if self._earlier is not None:
                self._earlier.copy(following.row)
            self.progress += following.step
            self._window.release()
            self._on_progress(self.progress)
