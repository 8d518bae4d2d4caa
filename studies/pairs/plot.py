"""Plot of `studies.pairs.study`: samples against agreement with the judge's long run, and predicted against observed
risk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter

from benchmarks.lib.plot_style import GREY, styled

if TYPE_CHECKING:
    from studies.pairs.study import Case

# From the colour-blind safe palette of Okabe and Ito.
COLOURS = {2: "#009e73", 8: "#d55e00", 16: "#0072b2"}


def plot(cases: Sequence[Case], path: Path) -> None:
    mpl.use("Agg")
    with styled():
        figure, (winners, singles, risk) = plt.subplots(1, 3, figsize=(13.5, 4.6), layout="constrained")
        _frontiers(winners, [case for case in cases if (case.kind, case.judge) == ("winners", "C")])
        winners.set_title("Winners of pairs, judge C", loc="left", fontsize=11, weight="bold")
        winners.set_ylabel("names the response that the judge prefers in the long run")
        _frontiers(singles, [case for case in cases if case.kind == "singles"])
        singles.set_title("Singles, judge C", loc="left", fontsize=11, weight="bold")
        _reliability(risk, cases)
        risk.set_title("Is the predicted risk right?", loc="left", fontsize=11, weight="bold")
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _frontiers(axes: Axes, cases: Sequence[Case]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_ylim(0, 1)
    axes.set_xlabel("samples of a group (mean)")
    for case in cases:
        colour = COLOURS[case.n]
        fixed = [row for row in case.rows if row.rule.startswith("fixed")]
        axes.plot([r.samples for r in fixed], [r.long_run for r in fixed], "o-", color=colour, markersize=4)
        axes.annotate(
            f"n = {case.n}", (fixed[0].samples, fixed[0].long_run), (4, -12), textcoords="offset points", color=colour
        )
        for row in case.rows:
            if not row.rule.startswith("fixed"):
                marker = "D" if row.rule.startswith("decided") else "x"
                axes.plot([row.samples], [row.long_run], marker, color=colour, markersize=9)
    axes.annotate(
        "line: fixed k; diamond: decided; cross: ring + pivots", (0.03, 0.03), xycoords="axes fraction", color=GREY
    )


def _reliability(axes: Axes, cases: Sequence[Case]) -> None:
    axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
    axes.set_xlabel("predicted disagreement with all 32 rounds")
    axes.set_ylabel("observed")
    axes.annotate(
        "circles: winners; squares: singles; colours as left", (0.03, 0.93), xycoords="axes fraction", color=GREY
    )
    for case in cases:
        if case.kind not in ("winners", "singles"):
            continue
        p, y = np.array([b.predicted for b in case.bins]), np.array([b.observed for b in case.bins])
        error = 1.96 * np.sqrt(y * (1 - y) / np.array([b.looks for b in case.bins]))
        marker = "o" if case.kind == "winners" else "s"
        axes.errorbar(p, y, error, fmt=marker, color=COLOURS[case.n], markersize=4, elinewidth=0.8)
