"""The error due to the order of the responses: Williams designs against random, cyclic and fixed orders, simulated.

    python -m studies.orders.study [--quick] [--out DIR]

The simulated judge favours the first position and contrasts a response with the one before it. Ideally its mean scores
over k samples equal those over all orders. The table shows their mean squared error, centred within the prompt because
a level common to all responses decides nothing, and the number of distinct prompts that the engine must prefill. All
four designs get the same merits and the same noise. Williams orders (Williams 1949) come from the server's own code.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from grm_server.grm.plan import plan
from grm_server.grm.types import Floats
from studies.judges import HIGHEST, LOWEST

Orders = NDArray[np.intp]

# Fitted once, to an earlier run of this comparison. Near the upper end of the scale, so clipping costs 7 % of the gap.
LEVEL = 7.4
MERIT_SD = 1.5
NOISE_SD = 1.1
SEED = 2026


@dataclass(frozen=True, slots=True)
class Setting:
    n: int
    k: int
    gap: float
    """Points that the first position gains over the last; linear between them."""
    carry: float
    """Share of the previous response's level that is subtracted from a response."""


SETTINGS = (
    Setting(2, 4, 0.5, 0),
    Setting(2, 8, 1.0, 0),
    Setting(2, 32, 1.0, 0),
    Setting(3, 30, 0.5, 0.2),
    Setting(4, 8, 0.5, 0),
    Setting(4, 32, 1.0, 0),
    Setting(4, 32, 0.5, 0.2),
    Setting(8, 8, 1.0, 0),
    Setting(8, 32, 0.5, 0.2),
)


@dataclass(frozen=True, slots=True)
class Row:
    setting: Setting
    mse: dict[str, float]
    distinct: dict[str, float]
    over_williams: dict[str, tuple[float, float]]
    """Ratio of the MSE to that of Williams, and its standard error."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the prompts")
    parser.add_argument(
        "--out", type=Path, default=Path("studies/results"), help="folder for the JSON file and the plot"
    )
    args = parser.parse_args()
    prompts = 2000 if args.quick else 20000
    rows = [measure(setting, prompts, np.random.default_rng([SEED, number])) for number, setting in enumerate(SETTINGS)]
    Console(width=120).print(table(rows))
    result = {"prompts": prompts, "rows": [asdict(row) for row in rows]}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "orders.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    plot(rows, args.out / "orders.png")
    print(json.dumps(result))


def measure(setting: Setting, prompts: int, rng: np.random.Generator) -> Row:
    merit = rng.normal(0, MERIT_SD, (prompts, setting.n))
    noise = rng.normal(0, NOISE_SD, (prompts, setting.k, setting.n))
    targets = _centred(target(setting, merit))
    errors, distinct = {}, {}
    for name, draw in DESIGNS.items():
        orders = draw(setting, prompts, rng)
        scores = judge(setting, merit[:, None] + noise, orders)
        errors[name] = ((_centred(scores.mean(axis=1)) - targets) ** 2).mean(axis=1)
        distinct[name] = _distinct(orders)
    ratios = {name: _ratio(errors[name], errors["Williams"]) for name in errors}
    return Row(setting, {name: float(error.mean()) for name, error in errors.items()}, distinct, ratios)


def judge(setting: Setting, levels: Floats, orders: Orders) -> Floats:
    """Scores (prompts, k, n): `levels`, changed by the effects of the order shown, rounded and clipped."""
    shown = np.take_along_axis(levels, orders, axis=2)
    raw = LEVEL + shown + _position(setting)
    raw[:, :, 1:] -= setting.carry * shown[:, :, :-1]
    scores = np.empty_like(raw)
    np.put_along_axis(scores, orders, np.clip(np.rint(raw), LOWEST, HIGHEST), axis=2)
    return scores


def target(setting: Setting, merit: Floats) -> Floats:
    """Expected scores (prompts, n) over the noise and over all orders, in closed form.

    Over all orders, a response is equally often at each position and, unless first, equally often after each other one.
    """
    n, position = setting.n, _position(setting)
    total = _expected_score(merit + position[0], NOISE_SD)
    for step in range(1, n):
        before = np.roll(merit, step, axis=1)
        for effect in position[1:]:
            level = merit + effect - setting.carry * before
            total += _expected_score(level, NOISE_SD * float(np.hypot(1, setting.carry))) / (n - 1)
    return total / n


def fixed_orders(setting: Setting, prompts: int, rng: np.random.Generator) -> Orders:
    return np.broadcast_to(np.arange(setting.n), (prompts, setting.k, setting.n))


def random_orders(setting: Setting, prompts: int, rng: np.random.Generator) -> Orders:
    return rng.permuted(fixed_orders(setting, prompts, rng), axis=2)


def cyclic_orders(setting: Setting, prompts: int, rng: np.random.Generator) -> Orders:
    return (fixed_orders(setting, prompts, rng) + np.arange(setting.k)[:, None]) % setting.n


def williams_orders(setting: Setting, prompts: int, rng: np.random.Generator) -> Orders:
    return np.array(
        [[draw.order for draw in plan(range(setting.n), setting.k, seed)] for seed in range(prompts)], np.intp
    )


DESIGNS: dict[str, Callable[[Setting, int, np.random.Generator], Orders]] = {
    "fixed": fixed_orders,
    "random": random_orders,
    "cyclic": cyclic_orders,
    "Williams": williams_orders,
}


def table(rows: list[Row]) -> Table:
    cells_table = Table(title="MSE of centred mean scores (distinct prompts)")
    for heading in ("n", "k", "gap", "carry", *DESIGNS, "random / Williams", "cyclic / Williams"):
        cells_table.add_column(heading, justify="right")
    for row in rows:
        cells = [f"{row.mse[name]:.3f} ({row.distinct[name]:.1f})" for name in DESIGNS]
        ratios = ["{:.2f} ± {:.3f}".format(*row.over_williams[name]) for name in ("random", "cyclic")]
        cells_table.add_row(*map(str, asdict(row.setting).values()), *cells, *ratios)
    return cells_table


def plot(rows: list[Row], path: Path) -> None:
    mpl.use("Agg")
    figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
    for name, marker in zip(DESIGNS, "xo^s", strict=True):
        axes.plot([row.over_williams[name][0] for row in rows], marker, label=name)
    labels = [f"n={s.n} k={s.k}\ngap {s.gap:g}\ncarry {s.carry:g}" for s in (row.setting for row in rows)]
    axes.set_xticks(range(len(rows)), labels)
    axes.set_yscale("log")
    axes.set_yticks([1, 2, 5, 10], ["1", "2", "5", "10"])
    axes.set_ylabel("MSE / MSE of Williams orders")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _position(setting: Setting) -> Floats:
    return np.linspace(setting.gap / 2, -setting.gap / 2, setting.n)


def _expected_score(level: Floats, sd: float) -> Floats:
    """Mean of a normal with mean `LEVEL + level` after rounding and clipping: a sum over thresholds of P(above it)."""
    grid = np.linspace(-12, 12, 481)
    passed = np.vectorize(NormalDist(0, sd).cdf)
    curve = LOWEST + sum(passed(LEVEL + grid - (score + 0.5)) for score in range(LOWEST, HIGHEST))
    score: Floats = np.interp(level, grid, curve)
    return score


def _centred(scores: Floats) -> Floats:
    centred: Floats = scores - scores.mean(axis=-1, keepdims=True)
    return centred


def _distinct(orders: Orders) -> float:
    """Mean over prompts of the number of different orders."""
    codes = np.sort(orders @ orders.shape[2] ** np.arange(orders.shape[2]), axis=1)
    return float(1 + np.mean(np.count_nonzero(np.diff(codes, axis=1), axis=1)))


def _ratio(errors: Floats, reference: Floats) -> tuple[float, float]:
    """Ratio of the means of paired errors, and its standard error by the delta method."""
    ratio = errors.mean() / reference.mean()
    error = (errors - ratio * reference).std() / reference.mean() / np.sqrt(len(errors))
    return float(ratio), float(error)


if __name__ == "__main__":
    main()
