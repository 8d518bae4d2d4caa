"""Findings of `grm doctor`, and their output formats."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    """The server works, but slowly or not reliably."""
    FAIL = "fail"
    """The server does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `grm doctor`."""

    level: Level
    check: str
    what: str
    """The state that the check found."""
    advice: str | None = None
    """What to do; None if nothing is wrong."""


def ok(check: str, what: str) -> Finding:
    return Finding(Level.OK, check, what)


def warn(check: str, what: str, advice: str) -> Finding:
    return Finding(Level.WARN, check, what, advice)


def fail(check: str, what: str, advice: str) -> Finding:
    return Finding(Level.FAIL, check, what, advice)


def healthy(findings: Iterable[Finding]) -> bool:
    return all(finding.level is not Level.FAIL for finding in findings)


def as_text(findings: Iterable[Finding]) -> str:
    lines = []
    for finding in findings:
        lines.append(f"{finding.level.value:<4}  {finding.check:<9}  {finding.what}")
        if finding.advice is not None:
            lines.append(f"{'':17}-> {finding.advice}")
    return "\n".join(lines)


def as_json(findings: Iterable[Finding]) -> str:
    rows = list(findings)
    return json.dumps({"ok": healthy(rows), "findings": [asdict(finding) for finding in rows]}, indent=1)


def gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
