"""The tables of `studies.meta_rm.study`."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from benchmarks.lib.estimates import Estimate


def auc_table(results: dict[str, dict[str, Any]], title: str) -> Table:
    table = Table(title=title)
    for heading in ("", "all judges", "the same judge", "calibration error of p"):
        table.add_column(heading)
    for name, cells in results.items():
        table.add_row(name, _plain(cells["auc"]), _plain(cells["auc_same_judge"]), f"{cells['calibration_error']:.3f}")
    return table


def votes_table(groups: dict[str, dict[str, Any]], title: str) -> Table:
    table = Table(title=title, caption="after each accuracy: points gained over the sum on the same items")
    table.add_column("")
    for rule in next(iter(groups.values()))["votes"]:
        table.add_column(rule)
    for name, cells in groups.items():
        table.add_row(name, *(_cell(rule, **estimates) for rule, estimates in cells["votes"].items()))
    return table


def k_table(by_k: dict[str, dict[str, Estimate]], name: str) -> Table:
    table = Table(title=f"label accuracy in % by k, p of {name}")
    table.add_column("k")
    for rule in by_k["all"]:
        table.add_column(rule)
    for k, rules in by_k.items():
        table.add_row(k, *(_percent(estimate) for estimate in rules.values()))
    return table


def _plain(e: Estimate) -> str:
    return f"{e.value:.3f} [dim]({e.low:.3f} to {e.high:.3f})[/]"


def _percent(e: Estimate) -> str:
    return f"{100 * e.value:.1f} [dim]({100 * e.low:.1f} to {100 * e.high:.1f})[/]"


def _cell(rule: str, accuracy: Estimate, gain: Estimate) -> str:
    if rule == "sum":
        return _percent(accuracy)
    return (
        f"{100 * accuracy.value:.1f} [dim]{100 * gain.value:+.1f} ({100 * gain.low:+.1f} to {100 * gain.high:+.1f})[/]"
    )
