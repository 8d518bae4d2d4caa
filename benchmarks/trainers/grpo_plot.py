"""Plot of `benchmarks.trainers.grpo`: the reward of each step, and the time spent waiting for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import MaxNLocator

from benchmarks.lib.plot_style import GREY, styled

# From the colour-blind safe palette of Okabe and Ito.
BLUE, ORANGE = "#0072b2", "#d55e00"


def plot(run: dict[str, Any], path: Path) -> None:
    """run: the contents of OUT.json of `benchmarks.trainers.grpo`."""
    mpl.use("Agg")
    steps = [row["step"] for row in run["steps"]]
    # The reward is null in a step in which all rewards failed.
    rewards, spreads = ([float(row[name] or "nan") for row in run["steps"]] for name in ("reward", "reward_std"))
    with styled():
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.5, 5), layout="constrained", sharex=True)
        top.set_title("Reward per step: mean, and standard deviation within groups", loc="left")
        top.set_ylim(1, 10)
        top.errorbar(steps, rewards, spreads, fmt="o-", color=BLUE, markersize=4, linewidth=1, elinewidth=0.8)
        top.set_ylabel("reward, 1 to 10")
        bottom.set_title("Seconds per step: total, and waiting for rewards", loc="left")
        bottom.bar(steps, [row["step_s"] for row in run["steps"]], color="#dddddd", label="total")
        bottom.bar(steps, [row["wait_s"] for row in run["steps"]], color=ORANGE, label="rewards")
        bottom.set_ylabel("seconds")
        bottom.set_xlabel("step")
        bottom.xaxis.set_major_locator(MaxNLocator(integer=True))
        bottom.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
        for restart in run["restarts"]:
            for axes in (top, bottom):
                axes.axvline(restart["step"], color=GREY, linewidth=1, linestyle="--", zorder=0)
            note = f" server restarted, down for {restart['down_s']:.0f} s"
            top.annotate(note, (restart["step"], 9.4), color=GREY)
        figure.savefig(path, dpi=150)
        plt.close(figure)
