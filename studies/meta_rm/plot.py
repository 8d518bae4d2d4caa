"""Plot of `studies.meta_rm.study`: AUC of the raters, gain over the sum, and accuracy by k."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.lib.estimates import Estimate
from benchmarks.lib.plot_style import GREY, styled

# From the colour-blind safe palette of Okabe and Ito.
COLOURS = {
    "sum": "#6e6e6e",
    "meta_hinge": "#0072b2",
    "meta_top": "#009e73",
    "shuffled hinge": "#56b4e9",
    "shuffled top": "#e69f00",
}
ALL_JUDGES, SAME_JUDGE = "#0072b2", "#d55e00"


def plot(results: dict[str, dict[str, Any]], by_k: dict[str, dict[str, Estimate]], name: str, path: Path) -> None:
    """name: the rater whose p gave `by_k`."""
    mpl.use("Agg")
    with styled():
        figure, (left, middle, right) = plt.subplots(
            1, 3, figsize=(13, 4.2), layout="constrained", gridspec_kw={"width_ratios": [1, 1, 1.2]}
        )
        _aucs(left, results)
        _gains(middle, results)
        _ks(right, by_k, name)
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _aucs(axes: Axes, results: dict[str, dict[str, Any]]) -> None:
    axes.set_title("AUC within prompts, held out", loc="left", weight="bold")
    kinds = (
        ("auc", ALL_JUDGES, 0.19, "samples of all judges"),
        ("auc_same_judge", SAME_JUDGE, -0.19, "of the same judge"),
    )
    for key, colour, shift, label in kinds:
        for place, cells in enumerate(results.values()):
            e = cells[key]
            off = [[e.value - e.low], [e.high - e.value]]
            name = label if place == 0 else None
            axes.barh(shift - place, e.value - 0.5, 0.34, left=0.5, color=colour, alpha=0.85, label=name)
            axes.errorbar([e.value], [shift - place], xerr=off, color="#222222", elinewidth=1)
    axes.axvline(0.5, color="#bbbbbb", linewidth=1)
    axes.set_yticks([-place for place in range(len(results))], list(results))
    axes.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.08), ncols=2)


def _gains(axes: Axes, results: dict[str, dict[str, Any]]) -> None:
    axes.set_title("Gain in label accuracy over the sum", loc="left", weight="bold")
    rules = ("meta_hinge", "meta_top", "shuffled hinge", "shuffled top")
    for number, rule in enumerate(rules):
        for place, cells in enumerate(results.values()):
            e = cells["votes"][rule]["gain"]
            off = [[e.value - e.low], [e.high - e.value]]
            at = 0.27 - 0.18 * number - place
            axes.errorbar([e.value], [at], xerr=off, fmt="o", color=COLOURS[rule], markersize=4.5, elinewidth=1.2)
    axes.axvline(0, color="#bbbbbb", linewidth=1, zorder=0)
    axes.set_yticks([-place for place in range(len(results))], [""] * len(results))
    axes.set_xlabel("all samples, colours as on the right", color=GREY)
    axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))


def _ks(axes: Axes, by_k: dict[str, dict[str, Estimate]], name: str) -> None:
    axes.set_title(f"Label accuracy by k, p of {name}", loc="left", weight="bold")
    ks = list(by_k)
    for rule, colour in COLOURS.items():
        y = [by_k[k][rule] for k in ks]
        axes.fill_between(range(len(ks)), [e.low for e in y], [e.high for e in y], color=colour, alpha=0.1, linewidth=0)
        axes.plot([e.value for e in y], color=colour, marker="o", markersize=4, linewidth=1.2, label=rule)
    axes.set_xticks(range(len(ks)), ks)
    axes.set_xlabel("k, random subsets of all judges' samples", color=GREY)
    axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
    axes.grid(axis="y", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
