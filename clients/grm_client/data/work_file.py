"""Work through a file of requests: many at once, rows out in the order of the lines in, memory bounded.

`concurrency` workers take lines from one reader. A finished row waits until every row before it is written, and no
line is read while `WINDOW` x `concurrency` lines are under way or waiting, so one slow line cannot fill the memory.
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
"""Lines under way or waiting to be written, for each worker."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, counting what is written."""

    lines: int = 0
    """Input lines dealt with, skipped and blank ones included: the number of the last one."""
    bytes_read: int = 0
    """Bytes of these lines."""
    done: int = 0
    """Rows without an error, in this run."""
    failed: int = 0
    """Rows with an error, in this run."""
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


class Done(NamedTuple):
    """What became of a line."""

    row: bytes = b""
    """For the output; empty where the line has none."""
    samples: int = 0
    completion_tokens: int = 0


Work = Callable[[int, Row], Awaitable[Done]]
"""Deals with the line of that number. Raises what the clients raise, and BadLine."""


class _Line(NamedTuple):
    number: int
    """From 1."""
    text: bytes


class _Reader:
    """Hands out the lines one at a time, and none while too many are under way."""

    def __init__(self, source: Iterable[bytes], window: asyncio.Semaphore, skip: int) -> None:
        self._lines = iter(source)
        self._window = window
        self._turn = asyncio.Lock()
        self._ended = False
        self.skipped = Progress()
        for line in islice(self._lines, skip):
            self.skipped += Progress(lines=1, bytes_read=len(line))
        self._number = self.skipped.lines

    async def next(self) -> _Line | None:
        """The next line; None at the end."""
        async with self._turn:
            if self._ended:
                return None
            await self._window.acquire()
            # In a thread, because the source may be a pipe: answers must be written while it has nothing to say.
            # The price: a run that stops while its pipe is silent ends with the pipe's next line.
            line = await asyncio.to_thread(next, self._lines, None)
            if line is None:
                self._ended = True
                self._window.release()
                return None
            self._number += 1
            return _Line(self._number, line)


class _Writer:
    """Puts rows out in the order of their lines, each as soon as it is its turn."""

    def __init__(
        self, out: BinaryIO, window: asyncio.Semaphore, progress: Progress, on_progress: Callable[[Progress], None]
    ) -> None:
        self._out = out
        self._window = window
        self._on_progress = on_progress
        self._waiting: dict[int, tuple[bytes, Progress]] = {}
        self.progress = progress

    def put(self, number: int, row: bytes, step: Progress) -> None:
        """Take the row of a line, empty for a blank one, and write all rows whose turn has come."""
        self._waiting[number] = row, step
        while (turn := self._waiting.pop(self.progress.lines + 1, None)) is not None:
            row, step = turn
            if row:
                # A whole row at once and no await: being cancelled cannot tear it.
                self._out.write(row)
                self._out.flush()
            self.progress += step
            self._window.release()
            self._on_progress(self.progress)


async def work_file(
    work: Work,
    source: Iterable[bytes],
    out: BinaryIO,
    *,
    concurrency: int,
    defaults: Mapping[str, object],
    skip: int,
    on_progress: Callable[[Progress], None],
) -> Progress:
    """Have every line of `source` after the first `skip` worked on and write its row to `out`.

    source: lines as bytes, see `jsonl` for their form and `jsonl.read_lines` for files of unknown origin.
    concurrency: lines under way at once.
    defaults: request fields for lines that lack them; None means not given.
    skip: lines that an earlier run has dealt with, see `jsonl.resume_point`.
    on_progress: called after each line.

    A line that is bad or refused gets an error row and the rest goes on. When nobody answers any more, the engine is
    dead or the API key is not accepted, no other line would fare better: the run ends with `Stopped`, and a later one
    can resume it.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, got {concurrency}")
    window = asyncio.Semaphore(WINDOW * concurrency)
    reader = _Reader(source, window, skip)
    writer = _Writer(out, window, reader.skipped, on_progress)

    async def take_lines() -> None:
        while (line := await reader.next()) is not None:
            row, step = await _work_line(work, line, defaults)
            writer.put(line.number, row, step)

    try:
        async with asyncio.TaskGroup() as workers:
            for _ in range(concurrency):
                workers.create_task(take_lines())
    except ExceptionGroup as failures:
        # The first failure ended the other workers; it alone is the reason.
        reason = failures.exceptions[0]
        if isinstance(reason, GRMClientError):
            raise Stopped(
                f"stopped after line {writer.progress.lines}: {reason}. "
                "The rows written are whole; the same command goes on from there (`grm score` with --resume)."
            ) from reason
        raise reason from None
    return writer.progress


async def _work_line(work: Work, line: _Line, defaults: Mapping[str, object]) -> tuple[bytes, Progress]:
    """The output row of a line, and the step it means. Raises what concerns every line (see work_file)."""
    number, text = line
    step = Progress(lines=1, bytes_read=len(text))
    if not text.strip():
        return b"", step
    row_id: object = None
    try:
        row = parse_line(number, text, defaults)
        row_id = row.id
        done = await work(number, row)
    except (BadLine, TimedOut, APIError) as error:
        if isinstance(error, APIError) and error.status in (401, 403, 503):
            raise
        return error_row(number, row_id, error), step + Progress(failed=1)
    return done.row, step + Progress(
        done=int(bool(done.row)), samples=done.samples, completion_tokens=done.completion_tokens
    )
