"""Progress of a run on a work file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Failure:
    """Lines that failed for the same reason."""

    count: int
    line: int
    """The first of them."""
    message: str
    """Its error."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a run. Counts rows that are final."""

    lines: int = 0
    """Input lines processed, including blank ones. Equals the number of the last one."""
    bytes_read: int = 0
    """Size of these lines."""
    done: int = 0
    """Rows without an error in this run."""
    failed: int = 0
    """Rows with an error in this run."""
    kept: int = 0
    """Rows of earlier runs."""
    samples: int = 0
    """Samples drawn by the server."""
    completion_tokens: int = 0
    failures: Mapping[str, Failure] = field(default_factory=dict)
    """`failed` by reason: the error's code and the request field at fault, or what is wrong with the line."""
    columns: frozenset[str] = frozenset()
    """Columns that are no fields of a request and were copied to `meta`."""

    def __add__(self, step: Progress) -> Progress:
        failures = self.failures
        for reason, new in step.failures.items():
            first = self.failures.get(reason)
            failures = {**failures, reason: replace(first, count=first.count + new.count) if first else new}
        return Progress(
            self.lines + step.lines,
            self.bytes_read + step.bytes_read,
            self.done + step.done,
            self.failed + step.failed,
            self.kept + step.kept,
            self.samples + step.samples,
            self.completion_tokens + step.completion_tokens,
            failures,
            self.columns | step.columns,
        )
