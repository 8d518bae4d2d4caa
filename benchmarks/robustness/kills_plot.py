"""Plot of `benchmarks.robustness.kills`: the latency of each request, the kills and the times without an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.lib.plot_style import GREY, styled

# From the colour-blind safe palette of Okabe and Ito.
BLUE, ORANGE = "#0072b2", "#d55e00"


def plot(run: dict[str, Any], path: Path) -> None:
    """run: the contents of OUT.json of `benchmarks.robustness.kills`."""
    mpl.use("Agg")
    with styled():
        figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
        green = run["until_green_s"]
        axes.set_title(
            f"{run['kills']} kills, {run['answers']} requests, {run['lost_or_wrong']} lost or wrong; ready again after "
            f"{green['median']:.1f} s (median), {green['max']:.1f} s (maximum)",
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
        axes.set_ylabel("latency of a request, s")
        axes.set_xlabel("time, s; dashed: a kill, grey: not ready")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        figure.savefig(path, dpi=150)
        plt.close(figure)
