"""Labelled items, and `grm collect` on them."""

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from tests.integration.processes import drawn, grm_here

ITEMS = 40
N = 3


def item(number: int, **fields: Any) -> str:
    """Pairs, lists of three and single responses in turn."""
    responses = [["A", "B"], ["A", "B", "C"], ["A"]][number % 3]
    label = number % max(2, len(responses))
    return json.dumps({"id": number, "query": f"Q{number}?", "responses": responses, "label": label} | fields)


def lines() -> list[str]:
    """40 usable items and seven unusable lines."""
    useless = [
        item(1000, label=None),
        item(1001, label=3),
        item(1002, label=True),
        item(1003, label=7),
        item(1004, principles=""),
        "no JSON",
        "",
    ]
    useful = [item(number) for number in range(ITEMS)]
    return useful[:10] + useless + useful[10:]


class Run(NamedTuple):
    """One run of `grm collect`."""

    file: Path
    out: Path
    done: subprocess.CompletedProcess[str]
    drawn: int
    """Samples that the server drew for this run."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(row) for row in self.out.read_text().splitlines()]

    @property
    def items(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if "error" not in row]


def run(url: str, folder: Path, *arguments: str, written: bytes | None = None) -> Run:
    """Run in `folder`. `written`: what an earlier run left there."""
    file, out = folder / "labelled.jsonl", folder / "trajectories.jsonl"
    file.write_text("\n".join(lines()) + "\n")
    if written is not None:
        out.write_bytes(written)
    before = drawn(url)
    done = grm_here("collect", str(file), "--out", str(out), "--url", url, "--seed", "1", *arguments)
    return Run(file, out, done, drawn(url) - before)
