"""Report of `benchmarks.serving.load`: a row for each system and workload, ratios, and whether targets are reached."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, geometric_mean, median
from typing import Any

from benchmarks.lib.arrivals import percentiles
from benchmarks.lib.cells import Cells

MEDIANS = (
    "requests_per_s",
    "samples_per_s",
    "scores_per_s",
    "tokens_per_s",
    "tokens_per_sample",
    "tokens_per_reward",
    "computed_prompt_tokens_per_reward",
    "cached_share",
    "parsed_share",
    "samples_per_request",
)
AGREEMENT = 0.99


@dataclass(frozen=True, slots=True)
class Target:
    """A ratio of two systems in the figure `unit`, which should be at least `minimum`."""

    title: str
    system: str
    baseline: str
    unit: str
    minimum: float | None
    """None: no target, for comparison only."""


TARGETS = (
    Target("fixed over separate calls, equal tokens", "fixed", "separate", "samples_per_s", 1.3),
    Target("fixed over n = k, equal tokens", "fixed", "n=k", "samples_per_s", 1.0),
    Target("decided over separate calls, equal tokens", "decided", "separate", "requests_per_s", 2.5),
    Target("fixed over separate calls as a user gets them", "fixed", "separate-free", "samples_per_s", None),
    Target("the same, by tokens", "fixed", "separate-free", "tokens_per_s", None),
    Target("fixed over n = k as a user gets it", "fixed", "n=k-free", "samples_per_s", None),
    Target("the same, by tokens", "fixed", "n=k-free", "tokens_per_s", None),
    Target("fixed over separate calls, vLLM's defaults, by tokens", "fixed", "separate-default", "tokens_per_s", None),
    Target("decided over fixed", "decided", "fixed", "requests_per_s", None),
)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Geometric mean over workloads and rounds, and the lowest and highest round."""

    target: Target
    value: float
    low: float
    high: float
    rounds: int
    by_workload: dict[str, float]
    """Geometric mean over the rounds of each workload."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How often two runs on the same requests and seeds name the same best response."""

    same: int
    of: int

    @property
    def share(self) -> float:
        return self.same / self.of if self.of else math.nan


@dataclass(frozen=True, slots=True)
class Report:
    rows: list[dict[str, Any]]
    ratios: list[Ratio]
    decided: Agreement
    floor: Agreement
    """Of two runs of `fixed`: the disagreement that comes from the engine's arithmetic alone."""
    markdown: str

    def write(self, path: Path) -> None:
        result = {
            "rows": self.rows,
            "ratios": [
                {
                    "what": r.target.title,
                    "least": r.target.minimum,
                    "value": r.value,
                    "low": r.low,
                    "high": r.high,
                    "by_workload": r.by_workload,
                }
                for r in self.ratios
            ],
            "agreement": {"decided": [self.decided.same, self.decided.of], "floor": [self.floor.same, self.floor.of]},
        }
        path.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def report(
    cells: Cells, systems: Sequence[str], workloads: Sequence[str], open_workload: str, loads: Sequence[float]
) -> Report:
    combinations = [(system, workload, 0.0) for workload in workloads for system in systems]
    combinations += [(system, open_workload, load) for load in loads for system in systems]
    rows = [_row(*each, rounds) for each in combinations if (rounds := cells.rounds(*each))]
    ratios = [ratio for target in TARGETS if (ratio := ratio_of(target, cells, workloads)) is not None]
    decided, floor = agreements(cells, workloads)
    markdown = _markdown(rows, ratios, decided, floor) + _conditions(cells, workloads) + "\n"
    return Report(rows, ratios, decided, floor, markdown)


def _conditions(cells: Cells, workloads: Sequence[str]) -> str:
    """How similar the conditions were under which the cells of a round were measured."""
    rows: dict[int, list[dict[str, Any]]] = {}
    for key in cells.keys:
        if not key.load and key.workload in workloads:
            rows.setdefault(key.round, []).append(cells.get(key))
    spans_s = [max(times) - min(times) for each in rows.values() if (times := [row["at_s"] for row in each])]
    loads = [row["machine_load"] for each in rows.values() for row in each]
    return (
        f"Cells of a round were measured within {max(spans_s) / 60:.0f} min of each other; the machine's load average "
        f"before each was {min(loads):.1f} to {max(loads):.1f}. If these are large, ratios may have a large error."
    )


def _row(system: str, workload: str, load: float, rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over rounds, and percentiles of the pooled latencies."""
    latencies = [answer["latency_s"] for row in rounds for answer in row["answers"]]
    return {
        "system": system,
        "workload": workload,
        "load": load,
        "rounds": len(rounds),
        "requests": len(latencies),
        **{name: median(row[name] for row in rounds) for name in MEDIANS},
        **percentiles(latencies),
    }


def ratio_of(target: Target, cells: Cells, workloads: Sequence[str]) -> Ratio | None:
    """None if there are no cells to compare."""
    by_round: dict[int, list[float]] = {}
    by_workload: dict[str, list[float]] = {}
    for workload in workloads:
        # Compare within a round: the machine's speed varies over hours.
        pairs = zip(cells.rounds(target.system, workload), cells.rounds(target.baseline, workload), strict=False)
        for number, (one, other) in enumerate(pairs):
            value = one[target.unit] / other[target.unit]
            by_round.setdefault(number, []).append(value)
            by_workload.setdefault(workload, []).append(value)
    if not by_round:
        return None
    rounds = [geometric_mean(values) for values in by_round.values()]
    return Ratio(
        target,
        value=geometric_mean([value for values in by_round.values() for value in values]),
        low=min(rounds),
        high=max(rounds),
        rounds=len(rounds),
        by_workload={workload: geometric_mean(values) for workload, values in by_workload.items()},
    )


def agreements(cells: Cells, workloads: Sequence[str]) -> tuple[Agreement, Agreement]:
    """Agreement of `decided` with `fixed` of the same round, and of `fixed` with `fixed` of the next round."""
    decided, floor = [], []
    for workload in workloads:
        fixed, stopped = cells.rounds("fixed", workload), cells.rounds("decided", workload)
        decided += [_same(*pair) for pair in zip(fixed, stopped, strict=False)]
        floor += [_same(*pair) for pair in zip(fixed, fixed[1:], strict=False)]
    return _total(decided), _total(floor)


def _same(one: dict[str, Any], other: dict[str, Any]) -> Agreement:
    best = {answer["item"]: answer["best"] for answer in one["answers"]}
    return Agreement(sum(best[answer["item"]] == answer["best"] for answer in other["answers"]), len(best))


def _total(agreements: Sequence[Agreement]) -> Agreement:
    return Agreement(sum(each.same for each in agreements), sum(each.of for each in agreements))


def target_status(ratio: Ratio, decided: Agreement) -> str:
    """Whether the target is reached, in words; empty without a target."""
    minimum = ratio.target.minimum
    if minimum is None:
        return ""
    if ratio.value < minimum:
        return f"NOT reached: {ratio.value / minimum:.0%} of it"
    if ratio.target.system == "decided" and not decided.share >= AGREEMENT:
        return f"ratio reached, agreement not: {decided.share:.1%}"
    return "reached"


def _markdown(rows: Sequence[dict[str, Any]], ratios: Sequence[Ratio], decided: Agreement, floor: Agreement) -> str:
    lines = [
        "| workload | load | system | rewards/s | samples/s | scores/s | tokens/s | tokens per sample, per reward |"
    ]
    lines[0] += " prompt tokens computed per reward | prefix hits | parsed | k used | p50 | p95 | p99, s |"
    lines.append("|---" * 15 + "|")
    for row in rows:
        latencies = " | ".join(f"{row[name]:.1f}" for name in ("p50", "p95", "p99"))
        lines.append(
            f"| {row['workload']} | {row['load'] or 'closed'} | {row['system']} | {row['requests_per_s']:.3f} "
            f"| {row['samples_per_s']:.2f} | {row['scores_per_s']:.2f} | {row['tokens_per_s']:.0f} "
            f"| {row['tokens_per_sample']:.0f}, {row['tokens_per_reward']:.0f} "
            f"| {row['computed_prompt_tokens_per_reward']:.0f} | {row['cached_share']:.2f} "
            f"| {row['parsed_share']:.0%} | {row['samples_per_request']:.1f} | {latencies} |"
        )
    lines += ["", "| ratio, closed loop | value (rounds) | by workload | target | |", "|---" * 5 + "|"]
    for ratio in ratios:
        target = "" if ratio.target.minimum is None else f"{ratio.target.minimum:g}"
        spread = f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f}, {ratio.rounds})"
        by_workload = ", ".join(f"{workload} {value:.2f}" for workload, value in ratio.by_workload.items())
        lines.append(
            f"| {ratio.target.title} | {spread} | {by_workload} | {target} | {target_status(ratio, decided)} |"
        )
    lines += ["", _agreement_line(rows, decided, floor)]
    return "\n".join(lines) + "\n"


def _agreement_line(rows: Sequence[dict[str, Any]], decided: Agreement, floor: Agreement) -> str:
    if not decided.of:
        return "`decided` was not compared with `fixed`."
    used = [row["samples_per_request"] for row in rows if row["system"] == "decided" and not row["load"]]
    line = (
        f"`decided` names the same best response as full k for {decided.same} of {decided.of} requests "
        f"({decided.share:.1%}), with {fmean(used):.1f} samples per request"
    )
    if floor.of:
        line += f"; two runs of `fixed` agree for {floor.same} of {floor.of} ({floor.share:.1%})"
    return line + "."
