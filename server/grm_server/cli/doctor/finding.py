"""What a check found, and how it is shown."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"
    """It works, but slowly or not for long."""
    FAIL = "fail"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `grm doctor`."""

    level: Level
    check: str
    what: str
    """What was found."""
    advice: str | None = None
    """What to do; None where all is well."""


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
    for found in findings:
        lines.append(f"{found.level.value:<4}  {found.check:<9}  {found.what}")
        if found.advice is not None:
            lines.append(f"{'':17}-> {found.advice}")
    return "\n".join(lines)


def as_json(findings: Iterable[Finding]) -> str:
    told = list(findings)
    return json.dumps({"ok": healthy(told), "findings": [asdict(found) for found in told]}, indent=1)


def gib(size: float) -> str:
    return f"{size / 2**30:.1f} GiB"
