"""Effects of each family of attacks, from the rows of `benchmarks.robustness.attack`. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.lib.estimates import Estimate, mean_of


@dataclass(frozen=True, slots=True)
class FamilyEffect:
    """Changes from a harmless text of about the same length to the attack: of the attacked answer's reward (1..10), and
    of its wins over the better answer (a tie counts half). Means over pairs of answers, with 95 % intervals."""

    family: str
    attacks: int
    """Requests with an attack."""
    pairs: int
    """Pairs of answers for which the plain, control and attack requests were all judged."""
    change: Estimate | None
    """None if there is no such pair."""
    se: float | None
    """Standard error of `change`; None for a single pair."""
    wins_control: float | None
    wins_attack: float | None
    wins_gained: Estimate | None
    from_plain: Estimate | None
    """Change of the reward from the unchanged answer."""
    samples: int
    failed: int
    """Samples of attacks that gave no scores."""
    refused: int
    """Attacks answered with 4xx: too long, or not valid text."""
    errors: int
    """Attacks answered with 5xx. There must be none."""


def effects(rows: Sequence[dict[str, Any]]) -> list[FamilyEffect]:
    """One effect for each family, in the order of the rows."""
    by_key = {row["key"]: row for row in rows}
    plain = {row["pair"]: row for row in rows if row["kind"] == "plain"}
    families = dict.fromkeys(row["family"] for row in rows if row["kind"] == "attack")
    return [
        _effect(family, [row for row in rows if row["kind"] == "attack" and row["family"] == family], by_key, plain)
        for family in families
    ]


def _effect(
    family: str, attacks: Sequence[dict[str, Any]], by_key: dict[str, dict[str, Any]], plain: dict[int, dict[str, Any]]
) -> FamilyEffect:
    judged = [
        (row, by_key[row["control"]], plain[row["pair"]])
        for row in attacks
        if row["status"] == by_key[row["control"]]["status"] == plain[row["pair"]]["status"] == 200
    ]
    changes = [row["reward"] - control["reward"] for row, control, _ in judged]
    gains = [_won(row) - _won(control) for row, control, _ in judged]
    return FamilyEffect(
        family=family,
        attacks=len(attacks),
        pairs=len(judged),
        change=mean_of(changes) if judged else None,
        se=float(np.std(changes, ddof=1) / math.sqrt(len(changes))) if len(changes) > 1 else None,
        wins_control=float(np.mean([_won(control) for _, control, _ in judged])) if judged else None,
        wins_attack=float(np.mean([_won(row) for row, _, _ in judged])) if judged else None,
        wins_gained=mean_of(gains) if judged else None,
        from_plain=mean_of([row["reward"] - before["reward"] for row, _, before in judged]) if judged else None,
        samples=sum(row.get("samples", 0) for row in attacks),
        failed=sum(row.get("failed", 0) for row in attacks),
        refused=sum(400 <= row["status"] < 500 for row in attacks),
        errors=sum(row["status"] >= 500 for row in attacks),
    )


def _won(row: dict[str, Any]) -> float:
    return 0.5 if row["reward"] == row["other"] else float(row["reward"] > row["other"])


def table(families: Sequence[FamilyEffect]) -> list[str]:
    """Lines of a Markdown table, the largest gain first."""
    lines = [
        "| family | judged | score change ± SE (95 %) | wins, control to attack | wins gained (95 %) | "
        "from plain (95 %) | samples failed | refused | server errors |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for effect in sorted(
        families,
        key=lambda effect: -math.inf if effect.change is None else effect.change.value,
        reverse=True,
    ):
        cells = ["-"] * 4
        if effect.change is not None and effect.wins_gained is not None and effect.from_plain is not None:
            spread = "" if effect.se is None else f" ± {effect.se:.2f}"
            cells = [
                f"{effect.change.value:+.2f}{spread} ({effect.change.low:+.2f} to {effect.change.high:+.2f})",
                f"{effect.wins_control:.0%} to {effect.wins_attack:.0%}",
                f"{effect.wins_gained.value:+.0%} ({effect.wins_gained.low:+.0%} to {effect.wins_gained.high:+.0%})",
                f"{effect.from_plain.value:+.2f} ({effect.from_plain.low:+.2f} to {effect.from_plain.high:+.2f})",
            ]
        counts = (
            f"{effect.failed} of {effect.samples}",
            f"{effect.refused} of {effect.attacks}",
            f"{effect.errors}",
        )
        lines.append(f"| {' | '.join((effect.family, str(effect.pairs), *cells, *counts))} |")
    return lines
