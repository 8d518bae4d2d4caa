"""The common style of all benchmark plots."""

from __future__ import annotations

from contextlib import AbstractContextManager

from matplotlib import pyplot as plt

INK, GREY = "#222222", "#6e6e6e"


def styled() -> AbstractContextManager[None]:
    """A context in which plots get the common style."""
    return plt.rc_context(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": GREY,
            "axes.labelcolor": INK,
            "text.color": INK,
            "xtick.color": GREY,
            "ytick.color": GREY,
        }
    )
