"""Process a file of requests concurrently, with output rows in input order and bounded memory.

`concurrency` workers take lines from one reader. A finished row waits until all rows before it are written. No line is
read while `WINDOW` x `concurrency` lines are in flight or waiting, so one slow line cannot fill the memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO, NamedTuple

from grm_client.data.jsonl import BadLine, Row, error_row, parse_line
from grm_client.errors import APIError, GRMClientError, Stopped, TimedOut

WINDOW = 4
"""Lines in flight or waiting to be written, per worker."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run. Counts written rows."""

    lines: int = 0
    """Input lines processed, including skipped and blank ones. Equals the number of the last one."""
    bytes_read: int = 0
    """Size of these lines."""
    done: int = 0
    """Rows without an error in this run."""
    failed: int = 0
    """Rows with an error in this run."""
    samples: int = 0
    """Samples drawn by the server."""
    completion_tokens: int = 0

    def __add__(self, step: Progress) -> Progress:
        return Progress(
            self.lines + step.lines,
            self.bytes_read + step.bytes_read,
            self.done + step.done,
            self.failed + step.failed,
            self.samples + step.samples,
            self.completion_tokens + step.completion_tokens,
        )


class LineResult(NamedTuple):
    """Result of one line."""

    row: bytes = b""
    """Output row; empty if the line has none."""
    samples: int = 0
    completion_tokens: int = 0


ProcessLine = Callable[[int, Row], Awaitable[LineResult]]
"""Processes one line: (line number, parsed line) -> result. Raises GRMClientError, of which BadLine is one."""


class _Line(NamedTuple):
    number: int
    """From 1."""
    text: bytes


class _Reader:
    """Hands out lines one at a time, and blocks while the window is full."""

    def __init__(self, source: Iterable[bytes], window: asyncio.Semaphore, skip: int) -> None:
        self._lines = iter(source)
        self._window = window
        self._lock = asyncio.Lock()
        self._ended = False
        self.skipped = Progress()
        for line in islice(self._lines, skip):
            self.skipped += Progress(lines=1, bytes_read=len(line))
        self._number = self.skipped.lines

    async def next(self) -> _Line | None:
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
            return _Line(self._number, line)


class _Writer:
    """Writes rows in line order, each as soon as all rows before it are written."""

    def __init__(
        self, out: BinaryIO, window: asyncio.Semaphore, progress: Progress, on_progress: Callable[[Progress], None]
    ) -> None:
        self._out = out
        self._window = window
        self._on_progress = on_progress
        self._waiting: dict[int, tuple[bytes, Progress]] = {}
        self.progress = progress

    def put(self, number: int, row: bytes, step: Progress) -> None:
        """Add the row of a line (empty for a blank line), and write all rows that are next in order."""
        self._waiting[number] = row, step
        while (following := self._waiting.pop(self.progress.lines + 1, None)) is not None:
            row, step = following
            if row:
                # One write without an await, so cancellation cannot cut a row.
                self._out.write(row)
                self._out.flush()
            self.progress += step
            self._window.release()
            self._on_progress(self.progress)


async def work_file(
    process: ProcessLine,
    source: Iterable[bytes],
    out: BinaryIO,
    *,
    concurrency: int,
    defaults: Mapping[str, object],
    skip: int,
    on_progress: Callable[[Progress], None],
) -> Progress:
    """Process every line of `source` after the first `skip` and write its row to `out`.

    source: lines as bytes; see `jsonl` for their format and `jsonl.read_lines` for untrusted files.
    concurrency: lines in flight at once.
    defaults: request fields for lines without them; None means not set.
    skip: number of lines that an earlier run has processed, see `jsonl.resume_point`.
    on_progress: called after each line.

    An invalid or refused line gets an error row, and the run continues. If the server cannot be reached, its engine is
    dead or it refuses the API key, all other lines would fail too: the run then raises `Stopped` and can be resumed.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, got {concurrency}")
    window = asyncio.Semaphore(WINDOW * concurrency)
    reader = _Reader(source, window, skip)
    writer = _Writer(out, window, reader.skipped, on_progress)

    async def process_lines() -> None:
        while (line := await reader.next()) is not None:
            row, step = await _process_line(process, line, defaults)
            writer.put(line.number, row, step)

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(process_lines())
    except ExceptionGroup as failures:
        # The first failure cancelled the other workers, so it is the cause.
        cause = failures.exceptions[0]
        if isinstance(cause, GRMClientError):
            raise Stopped(
                f"stopped after line {writer.progress.lines}: {cause}. "
                "All rows written are complete; run the same command again to resume (`grm score` with --resume)."
            ) from cause
        raise cause from None
    return writer.progress


async def _process_line(process: ProcessLine, line: _Line, defaults: Mapping[str, object]) -> tuple[bytes, Progress]:
    """The output row of a line and its progress. Raises errors that would recur for every line (see `work_file`)."""
    number, text = line
    step = Progress(lines=1, bytes_read=len(text))
    if not text.strip():
        return b"", step
    row_id: object = None
    try:
        row = parse_line(number, text, defaults)
        row_id = row.id
        result = await process(number, row)
    except (BadLine, TimedOut, APIError) as error:
        if isinstance(error, APIError) and error.status in (401, 403, 503):
            raise
        return error_row(number, row_id, error), step + Progress(failed=1)
    return result.row, step + Progress(
        done=int(bool(result.row)), samples=result.samples, completion_tokens=result.completion_tokens
    )
