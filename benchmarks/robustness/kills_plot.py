"""The picture of `benchmarks.robustness.kills`: seconds of each request, and what happened to the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.lib.plot_style import GREY, styled

# Okabe and Ito's palette, which colour-blind readers can tell apart.
BLUE, ORANGE = "#0072b2", "#d55e00"


def plot(run: dict[str, Any], path: Path) -> None:
    """run: as `benchmarks.robustness.kills` writes it."""
    mpl.use("Agg")
    with styled():
        figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
        green = run["until_green_s"]
        axes.set_title(
            f"{run['kills']} kills, {run['answers']} requests, {run['lost_or_wrong']} lost or wrong; ready again after "
            f"{green['median']:.1f} s (median), {green['max']:.1f} s (most)",
            loc="left",
        )
        for blow in run["blows"]:
            axes.axvline(blow["at_s"], color=GREY, linewidth=0.8, linestyle="--", zorder=0)
            if blow["red_s"] is not None and blow["green_s"] is not None:
                axes.axvspan(blow["red_s"], blow["green_s"], color="#eeeeee", zorder=-1, linewidth=0)
        for hit, colour, label in ((False, BLUE, "not hit by a kill"), (True, ORANGE, "hit by a kill")):
            rows = [row for row in run["timeline"] if row["hit"] == hit]
            seconds = [row["ended_s"] - row["sent_s"] for row in rows]
            axes.scatter([row["ended_s"] for row in rows], seconds, s=9, color=colour, label=label)
        axes.set_ylim(bottom=0)
        axes.set_ylabel("seconds of a request")
        axes.set_xlabel("seconds; dashed: a kill, grey: not ready")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        figure.savefig(path, dpi=150)
        plt.close(figure)
