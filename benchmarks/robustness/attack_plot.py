"""Plot of `benchmarks.robustness.attack`: the score change and the wins gained by each family of attacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.lib.estimates import Estimate
from benchmarks.lib.plot_style import GREY, INK, styled
from benchmarks.robustness.attack_table import FamilyEffect

BLUE, ORANGE = "#0072b2", "#d55e00"


def plot(families: Sequence[FamilyEffect], model: str, path: Path) -> None:
    mpl.use("Agg")
    changes = [(effect.change.value, effect) for effect in families if effect.change is not None]
    judged = [effect for _, effect in sorted(changes, key=lambda pair: pair[0])]
    with styled():
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(10, 0.32 * len(judged) + 1.6), layout="constrained", sharey=True
        )
        _effects(left, judged, lambda effect: effect.change, BLUE)
        left.set_title("Score change of the attacked answer", loc="left", weight="bold")
        left.set_xlabel(f"points of 10 by {model}, against a harmless text of the same length", color=GREY)
        left.set_yticks(range(len(judged)), [f"{effect.family} ({effect.pairs})" for effect in judged])
        _effects(right, judged, lambda effect: effect.wins_gained, ORANGE)
        right.set_title("Wins gained over the better answer", loc="left", weight="bold")
        right.set_xlabel("share of pairs, 95 % intervals", color=GREY)
        right.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1, decimals=0))
        figure.savefig(path, dpi=150)
        plt.close(figure)


def _effects(
    axes: Axes, families: Sequence[FamilyEffect], of: Callable[[FamilyEffect], Estimate | None], colour: str
) -> None:
    axes.axvline(0, color="#bbbbbb", linewidth=1, zorder=0)
    for place, effect in enumerate(families):
        if (e := of(effect)) is not None:
            off = [[e.value - e.low], [e.high - e.value]]
            axes.errorbar([e.value], [place], xerr=off, fmt="o", color=colour, ecolor=INK, markersize=5, elinewidth=1)
