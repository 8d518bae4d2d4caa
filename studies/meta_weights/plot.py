"""Plot of `studies.meta_weights.study`: a panel for each judge and AUC, a dot for each way to weight samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.lib.plot_style import GREY, styled

# From the colour-blind safe palette of Okabe and Ito.
PLAIN, SERVED, OTHER = "#6e6e6e", "#0072b2", "#e69f00"
JUDGES = {"A": "judge A: clean", "C": "judge C: 15 % noise", "B": "judge B: hard"}


class TableRow(Protocol):
    """The fields of a row that the plot uses."""

    @property
    def judge(self) -> str: ...
    @property
    def auc(self) -> float: ...
    @property
    def values(self) -> tuple[float, ...]: ...
    @property
    def gains_se(self) -> tuple[float, ...]: ...
    @property
    def earlier(self) -> tuple[float, ...]: ...


def plot(rows: Sequence[TableRow], columns: Sequence[str], path: Path) -> None:
    mpl.use("Agg")
    with styled():
        figure, panels = plt.subplots(2, 4, figsize=(13, 5.6), layout="constrained", sharex=True, squeeze=False)
        # Panels are sorted by AUC: weak meta RMs in the first row, better ones in the second.
        for axes, row in zip(panels.flat, sorted(rows, key=lambda r: r.auc), strict=False):
            _panel(axes, row, columns)
        legend = panels.flat[-1]
        legend.axis("off")
        words = (
            (PLAIN, "●  sum of all samples"),
            (SERVED, "●  available in the server: meta_top, meta_hinge"),
            (OTHER, "●  other weights"),
            (GREY, "×  an earlier run of another program"),
            (GREY, "bars: 95 %, of the difference from the sum"),
        )
        for line, (colour, text) in enumerate(words):
            legend.annotate(text, (0, 0.85 - 0.14 * line), xycoords="axes fraction", color=colour)
        figure.suptitle(
            "Share of prompts for which the better response is named; 2 responses, k = 32",
            x=0.01,
            ha="left",
            weight="bold",
        )
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _panel(axes: Axes, row: TableRow, columns: Sequence[str]) -> None:
    axes.set_title(f"{JUDGES[row.judge]}, meta RM's AUC {row.auc:.2f}", loc="left", fontsize=9, color=GREY)
    axes.axvline(row.values[0], color="#cccccc", linewidth=1, zorder=0)
    for place, (name, value, se) in enumerate(zip(columns, row.values, row.gains_se, strict=True)):
        colour = PLAIN if name == "sum" else SERVED if name.startswith("top") or name == "hinge" else OTHER
        axes.errorbar([value], [-place], xerr=[1.96 * se], fmt="o", color=colour, markersize=5, elinewidth=1.2)
        axes.plot([row.earlier[place]], [-place], "x", color=GREY, markersize=5)
    axes.set_yticks([-place for place in range(len(columns))], columns)
    axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    axes.tick_params(labelbottom=True)
