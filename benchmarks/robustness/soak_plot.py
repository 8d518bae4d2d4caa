"""Plot of `benchmarks.robustness.soak`: memory of the server and of the engine, and the server's open files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.lib.plot_style import GREY, styled

BLUE, ORANGE = "#0072b2", "#d55e00"
PANELS = (
    ("server_mib", "Memory of the server's process, MiB", BLUE),
    ("engine_mib", "Memory of the engine's process, MiB", ORANGE),
    ("files", "The server's open files and connections", GREY),
)
GROWN = {
    "server_mib": (("server_mib", "after the warm-up"),),
    "engine_mib": (("engine_in_use_mib", "in use after the warm-up"), ("engine_mib", "in all in the second half")),
}
"""Panel -> (key in the report's `growth`, its description)."""


def plot(report: dict[str, Any], path: Path) -> None:
    """report: the contents of OUT.json of `benchmarks.robustness.soak`."""
    mpl.use("Agg")
    at = [row["at_s"] / 60 for row in report["series"]]
    shown = [panel for panel in PANELS if any(row[panel[0]] for row in report["series"])]
    with styled():
        figure, every = plt.subplots(
            len(shown), 1, figsize=(7.5, 2 * len(shown)), layout="constrained", sharex=True, squeeze=False
        )
        for axes, (name, title, colour) in zip(every[:, 0], shown, strict=True):
            values = [row[name] for row in report["series"]]
            axes.plot(at, values, color=colour, linewidth=1)
            growths = [(report["growth"][key], what) for key, what in GROWN.get(name, ())]
            changes = [f"{each['mib']:+.1f} ± {each['error_mib']:.1f} {what}" for each, what in growths]
            axes.set_title("\n".join((title, "; ".join(changes))).rstrip(), loc="left")
            axes.set_ylim(0, 1.1 * max(values))
            axes.axvspan(0, report["warm_s"] / 60, color="#eeeeee", zorder=0)
        every[-1, 0].axvline(report["loaded_s"] / 60, color=GREY, linewidth=1, linestyle="--")
        every[-1, 0].set_xlabel("minutes; grey: warm-up, dashed line: end of the load")
        figure.savefig(path, dpi=150)
        plt.close(figure)
