"""Plot of `benchmarks.serving.load`: throughput and latency of each system."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.lib.plot_style import GREY, styled

# From the colour-blind safe palette of Okabe and Ito; one hue per approach, paler where the model ends its samples.
COLOURS = {
    "fixed": "#0072b2",
    "decided": "#009e73",
    "separate": "#d55e00",
    "n=k": "#e69f00",
    "separate-free": "#eaa97f",
    "n=k-free": "#f2cf80",
    "separate-default": "#cc79a7",
}


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """rows: those of `benchmarks.serving.load_report.Report`."""
    mpl.use("Agg")
    closed = [row for row in rows if not row["load"]]
    waits = [row for row in rows if row["load"]]
    with styled():
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(11, 4), layout="constrained", gridspec_kw={"width_ratios": (3, 2)}
        )
        left.set_title("Closed loop: samples per second", loc="left")
        workloads = list(dict.fromkeys(row["workload"] for row in closed))
        systems = list(dict.fromkeys(row["system"] for row in closed))
        width = 0.8 / max(1, len(systems))
        for place, system in enumerate(systems):
            heights = {row["workload"]: row["samples_per_s"] for row in closed if row["system"] == system}
            at = [workloads.index(workload) + (place - (len(systems) - 1) / 2) * width for workload in heights]
            left.bar(at, list(heights.values()), width, color=COLOURS[system], label=system)
        left.set_xticks(range(len(workloads)), workloads)
        left.legend(frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, -0.35))
        if waits:
            _waits(right, waits)
        else:
            right.set_axis_off()
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _waits(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    axes.set_title("Open loop: seconds until the answer", loc="left")
    labels = [f"{row['system']}, load {row['load']:g}" for row in rows]
    for place, row in enumerate(rows):
        axes.plot((row["p50"], row["p99"]), (place, place), color=COLOURS[row["system"]], linewidth=4, alpha=0.4)
        axes.plot(row["p50"], place, "o", color=COLOURS[row["system"]])
        axes.plot(row["p95"], place, "|", color=GREY, markersize=10)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel("seconds from arrival: p50 (dot) to p99, p95 (mark)")
