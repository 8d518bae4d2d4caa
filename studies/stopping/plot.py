"""Plot of `studies.stopping.study`: samples against agreement for each rule, and predicted against observed risk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.lib.plot_style import GREY, styled
from studies.stopping.earlier_run import Row
from studies.stopping.promises import RiskBin

# From the colour-blind safe palette of Okabe and Ito.
RULES = {
    "fixed": ("#6e6e6e", "o", "fixed k"),
    "Adaptive-Consistency": ("#d55e00", "s", "Adaptive-Consistency"),
    "decided": ("#0072b2", "D", "decided"),
    "strict": ("#009e73", "^", "strict"),
}
JUDGES = {"A": "judge A: clean", "C": "judge C: 15 % noise", "B": "judge B: hard"}
HEADING: dict[str, Any] = {"x": 0.01, "ha": "left", "fontsize": 12, "weight": "bold"}
NEVER = 2e-4
"""Where to draw zero disagreement on the logarithmic axis."""


def plot(rows: Sequence[Row], bins: Sequence[RiskBin], path: Path) -> None:
    mpl.use("Agg")
    with styled():
        figure = plt.figure(figsize=(13.5, 4.8), layout="constrained")
        left, right = figure.subfigures(1, 2, width_ratios=[2.4, 1], wspace=0.04, squeeze=False)[0]
        left.suptitle("Samples used and agreement with all 32 samples, 2 responses", **HEADING)
        right.suptitle("Is the predicted risk right?", **HEADING)
        for place, (axes, judge) in enumerate(zip(left.subplots(1, 3), JUDGES, strict=True)):
            axes.set_title(JUDGES[judge], loc="left", fontsize=10, color=GREY)
            _frontiers(axes, [row for row in rows if row.n == 2 and row.judge == judge], first=place == 0)
        _reliability(right.subplots(), bins)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _frontiers(axes: Axes, rows: Sequence[Row], *, first: bool) -> None:
    axes.set_yscale("log")
    axes.set_ylim(0.36, NEVER * 0.6)
    shares = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999)
    names = [f"{100 * share:g}%" for share in (*shares, 1)]
    axes.set_yticks([*(1 - share for share in shares), NEVER], names if first else [""] * len(names))
    axes.minorticks_off()
    axes.set_xlim(0, 33)
    axes.set_xticks([0, 8, 16, 24, 32])
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.set_xlabel("average samples")
    if first:
        axes.set_ylabel("same best response as all 32 samples")
    for name, (colour, marker, label) in RULES.items():
        points = []
        for row in rows:
            rule, _, level = row.rule.rpartition(" ")
            samples, agreement = row.values[0], row.values[1]
            if rule == name and row.rule != "fixed 32" and samples is not None and agreement is not None:
                points.append((samples, max(1 - agreement, NEVER), level))
        points.sort()
        x, y = [p[0] for p in points], [p[1] for p in points]
        axes.plot(x, y, color=colour, marker=marker, markersize=6, linewidth=1.4, clip_on=False, zorder=3)
        for place, (px, py, level) in enumerate(points):
            if name == "strict" and 0 < place < len(points) - 1:
                continue
            # The line of `decided` is steep, so its labels go to the left.
            offset, side = ((-6, -2), "right") if name == "decided" else ((1, -12), "center")
            axes.annotate(level, (px, py), offset, textcoords="offset points", fontsize=7.5, color=colour, ha=side)
        if first:
            place, offset, side = (1, (-10, 14), "right") if name == "decided" else (-1, (2, 8), "left")
            axes.annotate(
                label,
                (x[place], y[place]),
                offset,
                textcoords="offset points",
                color=colour,
                weight="bold",
                ha=side,
            )


def _reliability(axes: Axes, bins: Sequence[RiskBin]) -> None:
    low, high = 2e-4, 0.7
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    ticks = [0.001, 0.01, 0.1, 0.5]
    axes.set_xticks(ticks, [f"{t:.1%}" if t < 0.01 else f"{t:.0%}" for t in ticks])
    axes.set_yticks(ticks, [f"{t:.1%}" if t < 0.01 else f"{t:.0%}" for t in ticks])
    axes.minorticks_off()
    axes.plot([low, high], [low, high], color="#bbbbbb", linewidth=1)
    p, y = np.array([b.predicted for b in bins]), np.array([b.observed for b in bins])
    error = 1.96 * np.sqrt(y * (1 - y) / np.array([b.looks for b in bins]))
    # The axes are logarithmic, so omit bins without disagreement.
    seen = y > 0
    axes.errorbar(
        p[seen],
        y[seen],
        [np.minimum(error, 0.9 * y)[seen], error[seen]],
        fmt="D",
        color=RULES["decided"][0],
        markersize=6,
        elinewidth=1.2,
    )
    axes.set_xlabel("predicted disagreement with all 32 samples")
    axes.set_ylabel("observed")
    axes.annotate("overconfident", (0.04, 0.93), xycoords="axes fraction", color=GREY)
    axes.annotate("underconfident", (0.96, 0.06), xycoords="axes fraction", color=GREY, ha="right")
