"""Plot of `studies.replay.study`, with a colour for each number of responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.lib.estimates import Estimate
from benchmarks.lib.plot_style import GREY, styled

# From the colour-blind safe palette of Okabe and Ito.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
MARKERS = {"decided": "D", "strict": "^"}


def plot(result: dict[str, Any], path: Path) -> None:
    """result: the report of `studies.replay.study`, with `Estimate` objects in place of dictionaries."""
    mpl.use("Agg")
    groups = [(name, group) for name, group in result.items() if name.startswith("n=")]
    with styled():
        figure, (left, middle, right) = plt.subplots(
            1, 3, figsize=(13, 4.2), layout="constrained", gridspec_kw={"width_ratios": [1.5, 1, 1]}
        )
        for place, ((name, group), colour) in enumerate(zip(groups, COLOURS, strict=False)):
            _agreement(left, name, group["rules"], colour, above=place == 0)
            shift = 0.12 * (place - (len(groups) - 1) / 2)
            _completion(middle, group["symptoms"]["completion_order"], colour, shift)
            _positions(right, group["symptoms"]["position"], colour, shift)
        left.set_title("Agreement with all samples", loc="left", weight="bold")
        left.set_xlabel("average samples")
        left.grid(axis="y", color="#eeeeee")
        left.set_axisbelow(True)
        left.annotate(
            "● fixed k   ◆ decided   ▲ strict .05, .10", (0.98, 0.04), xycoords="axes fraction", color=GREY, ha="right"
        )
        middle.set_title("First to finish, not first launched", loc="left", weight="bold")
        middle.set_ylabel("added disagreement with all samples")
        right.set_title("Points gained by a position", loc="left", weight="bold")
        right.set_xlabel("position shown")
        for axes in (middle, right):
            axes.axhline(0, color="#bbbbbb", linewidth=1, zorder=0)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _agreement(axes: Axes, name: str, rules: dict[str, dict[str, Estimate]], colour: str, *, above: bool) -> None:
    """above: put labels above the line; used to keep the labels of two groups apart."""
    fixed = [cells for rule, cells in rules.items() if rule.startswith("fixed")]
    x, y = [cells["samples"].value for cells in fixed], [cells["agreement"] for cells in fixed]
    axes.fill_between(x, [e.low for e in y], [e.high for e in y], color=colour, alpha=0.15, linewidth=0)
    axes.plot(x, [e.value for e in y], color=colour, marker="o", markersize=4, linewidth=1.2)
    offset, side = ((-3, 8), "right") if above else ((3, -14), "left")
    axes.annotate(name, (x[-2], y[-2].value), offset, textcoords="offset points", color=colour, weight="bold", ha=side)
    for rule, cells in rules.items():
        kind, level = rule.split()
        if kind in MARKERS:
            at = (cells["samples"].value, cells["agreement"].value)
            _bar(axes, at[0], cells["agreement"], colour, MARKERS[kind])
            if kind == "decided":
                offset, side = ((-7, -3), "right") if above else ((0, -16), "center")
                axes.annotate(level, at, offset, textcoords="offset points", fontsize=7.5, color=colour, ha=side)


def _completion(axes: Axes, checks: dict[int, dict[str, Estimate]], colour: str, shift: float) -> None:
    for place, rates in enumerate(checks.values()):
        _bar(axes, place + shift, rates["excess"], colour, "o")
    axes.set_xticks(range(len(checks)), [f"first {m}" for m in checks])
    axes.set_xlim(-0.5, len(checks) - 0.5)


def _positions(axes: Axes, position: dict[str, Any], colour: str, shift: float) -> None:
    for place, (effect, se) in enumerate(zip(position["effect"], position["se"], strict=True), 1):
        _bar(axes, place + shift, Estimate(effect, effect - 1.96 * se, effect + 1.96 * se), colour, "o")
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True))
    axes.margins(x=0.2)


def _bar(axes: Axes, x: float, estimate: Estimate, colour: str, marker: str) -> None:
    off = [[estimate.value - estimate.low], [estimate.high - estimate.value]]
    axes.errorbar([x], [estimate.value], off, fmt=marker, color=colour, markersize=6, elinewidth=1.2, clip_on=False)
