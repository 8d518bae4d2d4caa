"""Plot of `benchmarks.serving.overload`: samples answered, latencies and refusals over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.lib.arrivals import TimedResult
from benchmarks.lib.plot_style import GREY, styled

BLUE, ORANGE = "#0072b2", "#d55e00"


def plot(report: dict[str, Any], timed: Sequence[TimedResult[Any]], path: Path) -> None:
    """report: the contents of OUT.json of `benchmarks.serving.overload`; timed: its requests."""
    mpl.use("Agg")
    answered = [each for each in timed if each.result.status == 200]
    refused = [each for each in timed if each.result.status != 200]
    with styled():
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(7.5, 5.5), layout="constrained", sharex=True)
        top.set_title("Samples answered per second, mean of 5 s; dashed: the peak", loc="left")
        edges = np.arange(0.0, report["seconds"] + 5, 5.0)
        done, _ = np.histogram([a.done_s for a in answered], edges, weights=[a.result.samples for a in answered])
        top.stairs(done / 5.0, edges, color=BLUE, fill=True, alpha=0.7)
        top.axhline(report["peak"]["samples_per_s"], color=GREY, linewidth=1, linestyle="--")
        bottom.set_title(
            "Seconds until an answer (blue), or a refusal or failure (orange); dashed: the deadline",
            loc="left",
        )
        bottom.plot([a.intended_s for a in answered], [a.latency_s for a in answered], ".", color=BLUE, markersize=4)
        waited = [r.done_s - r.sent_s for r in refused]
        bottom.plot([r.intended_s for r in refused], waited, ".", color=ORANGE, markersize=2, alpha=0.5)
        bottom.axhline(report["deadline_s"], color=GREY, linewidth=1, linestyle="--")
        bottom.set_yscale("log")
        bottom.set_xlabel("seconds")
        figure.savefig(path, dpi=150)
        plt.close(figure)
