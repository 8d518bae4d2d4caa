"""Reads the log for `studies.replay.study`: rows of `grm score` with their samples (docs/design/replay-log.md)."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grm_server.grm.types import Floats, Order

MIN_VALID_SHARE = 0.5
"""Minimum share of a row's samples with scores. With fewer, the decision at full k is no useful reference."""


@dataclass(frozen=True, slots=True, eq=False)
class LoggedRequest:
    """One request with all its samples, in launch order."""

    best: tuple[int, ...]
    """Indices of the responses that the label prefers."""
    values: Floats
    """(k, n) scores; a sample without scores is a row of NaN."""
    orders: tuple[Order, ...]
    """(k,)"""
    finished_s: Floats
    """(k,), seconds from the request's arrival; infinite if the engine failed."""
    tokens: Floats
    """(k,), tokens of each sample, including its scores."""
    texts: tuple[str, ...]
    """(k,), principles and critique."""

    @property
    def k(self) -> int:
        return len(self.orders)

    @property
    def n(self) -> int:
        return int(self.values.shape[1])

    @property
    def sums(self) -> Floats:
        """(n,), sums of the scores over all samples."""
        total: Floats = np.nansum(self.values, axis=0)
        return total


def read_log(path: Path) -> tuple[list[LoggedRequest], dict[str, int]]:
    """The rows that can be replayed, and the number of skipped rows by reason.

    Rows are compared with their full k, so all must have the same k: the most frequent one.
    """
    read = [_read(json.loads(line)) for line in path.read_text("utf-8").splitlines() if line.strip()]
    rows = [row for row in read if isinstance(row, LoggedRequest)]
    skipped = Counter(row for row in read if isinstance(row, str))
    if rows:
        k = Counter(row.k for row in rows).most_common(1)[0][0]
        skipped["other_k"] = sum(row.k != k for row in rows)
        rows = [row for row in rows if row.k == k]
    return rows, {reason: count for reason, count in skipped.items() if count}


def _read(row: dict[str, Any]) -> LoggedRequest | str:
    """One row, or the reason why it cannot be replayed."""
    if "error" in row:
        return f"error: {row['error']['code']}"
    if not row["samples"]:
        return "no_samples"
    n = len(row["rewards"])
    if n < 2:
        return "one_response"
    if row.get("stop_reason", "full_k") != "full_k":
        return "stopped_early"
    label = row["id"]
    if not isinstance(label, dict) or not label.get("best"):
        return "no_label"
    samples = sorted(row["samples"], key=lambda sample: int(sample["index"]))
    if any(len(sample["order"]) < n for sample in samples):
        return "blocks"
    values = np.array([sample["scores"] or [math.nan] * n for sample in samples], dtype=float)
    if np.isnan(values[:, 0]).mean() > 1 - MIN_VALID_SHARE:
        return "too_few_valid"
    return LoggedRequest(
        tuple(label["best"]),
        values,
        tuple(tuple(sample["order"]) for sample in samples),
        np.array([math.inf if sample["finished_s"] is None else sample["finished_s"] for sample in samples]),
        np.array([sample["completion_tokens"] for sample in samples], dtype=float),
        tuple(f"{sample['principles'] or ''}\n{sample['critique'] or ''}".strip() for sample in samples),
    )
