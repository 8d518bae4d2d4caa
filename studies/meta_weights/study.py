"""The value of a meta RM, and ways to weight samples by it, on simulated judges.

    python -m studies.meta_weights.study [--quick] [--out DIR] [--prompts 4000] [--seed 0]

Two responses, k = 32, judges of studies/judges.py. A sample's meta score is

    c * right + bias + noise

noise has variance 1. bias is shared by all samples of a prompt that prefer the same response, since a meta RM that
likes one of them tends to like all. c is chosen to give the AUC of the row, between right and wrong samples of a
prompt. A tie is wrong. p is calibrated on other prompts (Platt).

Columns: share of prompts for which the better response is named by the sum, by the `meta_top` samples with the highest
p, by sums weighted with p, p² and p / (1 - p), and by `meta_hinge`. In grey: the result of an earlier run of another
program. That run did not state the size of its bias. This study uses the size whose gains are nearest to that run; the
last table shows other sizes.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.stats import norm

from grm_server.grm.types import Bools, Floats
from grm_train.meta_rm.head import platt
from grm_train.meta_rm.quality import group_aucs, probabilities
from studies.judges import JUDGES, SimulatedScores, simulate
from studies.meta_rm.guided import names_best, names_best_by_hinge, names_best_by_top
from studies.meta_weights.plot import plot

K = 32
QUICK_PROMPTS = 400
BIAS = 1.0
BIASES = (0.0, 0.5, 1.0, 1.5, 2.0)
COLUMNS: dict[str, Callable[[Floats, Floats, int], float]] = {
    "sum": lambda scores, p, best: names_best(scores, best),
    "top 1": lambda scores, p, best: names_best_by_top(scores, p, best, 1),
    "top 8": lambda scores, p, best: names_best_by_top(scores, p, best, 8),
    "top 16": lambda scores, p, best: names_best_by_top(scores, p, best, 16),
    "p": lambda scores, p, best: names_best(p[:, None] * scores, best),
    "p²": lambda scores, p, best: names_best(p[:, None] ** 2 * scores, best),
    "odds": lambda scores, p, best: names_best((p / (1 - p))[:, None] * scores, best),
    "hinge": names_best_by_hinge,
}
EARLIER = {
    ("A", 0.50): (0.739, 0.647, 0.711, 0.727, 0.738, 0.738, 0.738, 0.738),
    ("A", 0.58): (0.739, 0.703, 0.746, 0.747, 0.741, 0.742, 0.745, 0.748),
    ("A", 0.64): (0.739, 0.742, 0.771, 0.761, 0.746, 0.754, 0.757, 0.771),
    ("C", 0.58): (0.732, 0.684, 0.736, 0.743, 0.736, 0.738, 0.740, 0.743),
    ("C", 0.69): (0.732, 0.776, 0.795, 0.778, 0.756, 0.773, 0.784, 0.798),
    ("B", 0.50): (0.705, 0.570, 0.643, 0.677, 0.704, 0.704, 0.704, 0.703),
    ("B", 0.64): (0.705, 0.706, 0.753, 0.747, 0.727, 0.743, 0.747, 0.757),
}
"""(judge, AUC) -> label accuracies of the earlier run, on EARLIER_PROMPTS prompts."""
EARLIER_PROMPTS = 4000


@dataclass(frozen=True, slots=True)
class Row:
    judge: str
    auc: float
    """Target AUC of the meta RM."""
    measured_auc: float
    values: tuple[float, ...]
    """(columns,): share of prompts for which the better response is named."""
    se: tuple[float, ...]
    gains: tuple[float, ...]
    """(columns,): over the sum, on the same prompts."""
    gains_se: tuple[float, ...]
    earlier: tuple[float, ...]
    z: tuple[float, ...]
    """(columns,): difference of `values` from the earlier run, in standard errors of both runs."""
    gains_z: tuple[float, ...]
    """(columns,): the same for `gains`, which depend less on the random prompts of a run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PROMPTS} prompts")
    parser.add_argument(
        "--out", type=Path, default=Path("studies/results"), help="folder for the JSON file and the plot"
    )
    parser.add_argument("--prompts", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    prompts = QUICK_PROMPTS if args.quick else args.prompts
    console = Console(width=150)

    tables = {bias: run(bias, prompts, args.seed) for bias in track(BIASES, "sizes of the bias", console=console)}
    rows = tables[BIAS]
    misfits = {bias: misfit(rows_of_bias) for bias, rows_of_bias in tables.items()}
    far = {
        "values": [f"{r.judge} {r.auc:.2f} {c}" for r in rows for c, z in zip(COLUMNS, r.z, strict=True) if abs(z) > 2],
        "gains": [
            f"{r.judge} {r.auc:.2f} {c}" for r in rows for c, z in zip(COLUMNS, r.gains_z, strict=True) if abs(z) > 2
        ],
    }
    console.print(accuracy_table(rows, prompts))
    console.print(gain_table(rows))
    console.print(misfit_table(misfits))
    console.print(f"Cells more than 2 standard errors from the earlier run, of {len(rows) * len(COLUMNS)}: {far}")

    result: dict[str, Any] = {
        "prompts": prompts,
        "seed": args.seed,
        "k": K,
        "columns": list(COLUMNS),
        "bias": BIAS,
        "rows": [asdict(row) for row in rows],
        "beyond_2": far,
        "misfit_by_bias": misfits,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "meta_weights.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    plot(rows, list(COLUMNS), args.out / "meta_weights.png")
    print(json.dumps({f"{r.judge} {r.auc:.2f}": dict(zip(COLUMNS, np.round(r.values, 4), strict=True)) for r in rows}))


def run(bias: float, prompts: int, seed: int) -> list[Row]:
    """The whole table. All rows of a judge use the same prompts."""
    rows = []
    for number, judge in enumerate(JUDGES):
        rng = np.random.default_rng([seed, number])
        fitted, tested = (simulate(JUDGES[judge], 2, K, prompts, rng) for _ in range(2))
        for auc in (auc for j, auc in EARLIER if j == judge):
            p, measured = calibrated(fitted, tested, auc, bias, rng)
            cells = np.array([_cells(tested.scores[i], p[i], int(tested.best[i])) for i in range(prompts)])
            rows.append(row(judge, auc, measured, cells))
    return sorted(rows, key=lambda r: list(EARLIER).index((r.judge, r.auc)))


def calibrated(
    fitted: SimulatedScores, tested: SimulatedScores, auc: float, bias: float, rng: np.random.Generator
) -> tuple[Floats, float]:
    """(prompts, K) p of `tested`, calibrated on `fitted`; and the AUC between samples of the same prompt."""
    logits, right, has_scores = meta_scores(fitted, auc, bias, rng)
    ab = platt(logits[has_scores], right[has_scores])
    logits, right, has_scores = meta_scores(tested, auc, bias, rng)
    prompts = np.nonzero(has_scores)[0]
    return probabilities(logits, ab), float(group_aucs(logits[has_scores], right[has_scores], prompts).mean())


def meta_scores(
    simulated: SimulatedScores, auc: float, bias: float, rng: np.random.Generator
) -> tuple[Floats, Bools, Bools]:
    """(prompts, K) each: meta scores, whether the sample is right, whether it has scores."""
    scores, best = simulated.scores, simulated.best[:, None]
    has_scores = ~np.isnan(scores[:, :, 0])
    ahead = np.sign(np.where(has_scores, scores[:, :, 0] - scores[:, :, 1], 0))
    right = ahead == np.where(best == 0, 1, -1)
    # Right and wrong samples of a prompt never share a bias, so this is the AUC of two normal distributions.
    c = norm.ppf(auc) * math.sqrt(2 + 2 * bias**2)
    liking = np.take_along_axis(rng.normal(0, bias, (len(scores), 3)), ahead.astype(int) + 1, axis=1)
    return c * right + liking + rng.standard_normal(right.shape), right, has_scores


def _cells(scores: Floats, p: Floats, best: int) -> list[float]:
    return [names(scores, p, best) for names in COLUMNS.values()]


def row(judge: str, auc: float, measured_auc: float, cells: Floats) -> Row:
    """cells: (prompts, columns), whether the better response was named."""
    n, earlier = len(cells), np.array(EARLIER[judge, auc])
    # Assumes that the earlier run had the same variance between prompts.
    both = math.sqrt(1 + n / EARLIER_PROMPTS)
    values, se = cells.mean(axis=0), cells.std(axis=0) / math.sqrt(n)
    paired = cells - cells[:, :1]
    gains, gains_se = paired.mean(axis=0), paired.std(axis=0) / math.sqrt(n)
    z = (values - earlier) / (se * both)
    gains_z = (gains - (earlier - earlier[0])) / np.maximum(gains_se * both, 1e-3)
    numbers = (values, se, gains, gains_se, earlier, z, gains_z)
    return Row(judge, auc, measured_auc, *(tuple(map(float, x)) for x in numbers))


def misfit(rows: list[Row]) -> float:
    """Root mean square difference of the gains from those of the earlier run."""
    off = np.array([np.array(r.gains) - (np.array(r.earlier) - r.earlier[0]) for r in rows])
    return float(np.sqrt((off[:, 1:] ** 2).mean()))


def accuracy_table(rows: list[Row], prompts: int) -> Table:
    table = _table(f"label accuracy ± s.e. in %, [dim]the earlier run's[/]; {prompts} prompts, bias {BIAS:g}")
    for r in rows:
        table.add_row(*_head(r), *map(_cell, r.values, r.se, r.earlier, r.z))
    return table


def gain_table(rows: list[Row]) -> Table:
    table = _table("points gained over the sum ± s.e. on the same prompts, [dim]the earlier run's[/]")
    for r in rows:
        table.add_row(*_head(r), *map(_cell, r.gains, r.gains_se, (e - r.earlier[0] for e in r.earlier), r.gains_z))
    return table


def _table(title: str) -> Table:
    table = Table(title=title, caption="red: more than 2 standard errors of both runs apart")
    for heading in ("", "AUC", *COLUMNS):
        table.add_column(heading, no_wrap=True)
    return table


def _head(r: Row) -> tuple[str, str]:
    return r.judge, f"{r.auc:.2f}"


def _cell(value: float, se: float, earlier: float, z: float) -> str:
    return f"{100 * value:.1f} ±{100 * se:.1f} [{'bold red' if abs(z) > 2 else 'dim'}]{100 * earlier:.1f}[/]"


def misfit_table(misfits: dict[float, float]) -> Table:
    table = Table(title="size of the bias, and difference of the gains from the earlier run's")
    for heading in ("sd of bias / sd of noise", "root mean square of 49 differences"):
        table.add_column(heading, justify="right")
    for bias, distance in misfits.items():
        table.add_row(f"{bias:g}", f"{distance:.4f}")
    return table


if __name__ == "__main__":
    main()
