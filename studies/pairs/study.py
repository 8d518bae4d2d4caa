"""Pairs and singles in groups, on simulated judges: is the risk that `decided` predicts right, and what does it save?

    python -m studies.pairs.study            # --prompts 100 for a quick look

Judges that name the winner of a pair, with noise, ties and a bias for the first position, judge groups of 2, 8 and 16
responses, at most 32 samples of each response. One that grades single responses judges the same groups.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from grm_server.grm.types import Bools, Ints
from studies.judges import JUDGES
from studies.pairs.judges import Kind, long_run_best, simulate_groups, true_prior
from studies.pairs.plot import plot
from studies.pairs.runs import Look, decided, looks, ring_and_pivots

K = 32
GAMMA = 0.05
RESERVE = 200
"""Samples that stand for infinitely many."""
PRIOR_PROMPTS, PRIOR_SAMPLES = 1500, 128
RISK_BINS = (0.0, 0.01, 0.03, 0.1, 0.2, 0.35, 0.6)
CASES: tuple[tuple[Kind, int, str], ...] = (
    *(("winners", n, judge) for n in (2, 8, 16) for judge in JUDGES),
    *(("preferences", n, "C") for n in (8, 16)),
    *(("scores", n, "C") for n in (8, 16)),
    *(("singles", n, "C") for n in (2, 8, 16)),
)


@dataclass(frozen=True, slots=True)
class RiskBin:
    predicted: float
    observed: float
    looks: int


@dataclass(frozen=True, slots=True)
class Row:
    """A rule on all prompts of a case. Shares of prompts, 0..1."""

    rule: str
    samples: float
    long_run: float
    """The named response is the one that the judge would name after very many samples."""
    label: float
    """The named response is truly the best."""
    wrong_early: float | None = None
    """Of the early stops, those that the audit decides otherwise."""
    claimed: float | None = None
    """The mean risk of the early stops."""


@dataclass(frozen=True, slots=True)
class Case:
    kind: Kind
    n: int
    judge: str
    rows: list[Row]
    bins: list[RiskBin]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("studies/results"), help="folder for the JSON file and plot")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    console = Console(width=120)
    cases = [run(kind, n, judge, args.prompts, args.seed) for kind, n, judge in CASES]
    console.print(rules_table(cases, args.prompts))
    console.print(risk_table(cases))
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "pairs.json").write_text(json.dumps([asdict(case) for case in cases], indent=2) + "\n", "utf-8")
    plot(cases, args.out / "pairs.png")


def run(kind: Kind, n: int, judge: str, prompts: int, seed: int) -> Case:
    rng = np.random.default_rng([seed, n, ord(judge)])
    prior = true_prior(simulate_groups(JUDGES[judge], 2, PRIOR_SAMPLES, PRIOR_PROMPTS, rng), kind)
    # An audit may draw nearly as many samples again.
    drawn = K * n if kind != "singles" else 2 * K * n
    groups = simulate_groups(JUDGES[judge], n, drawn + RESERVE, prompts, rng)
    best = long_run_best(groups, drawn, kind)
    fixed = [looks(groups, prompt, kind, K, prior) for prompt in range(prompts)]
    adaptive = [decided(groups, prompt, kind, K, prior, GAMMA) for prompt in range(prompts)]

    def row(rule: str, chosen: list[Look]) -> Row:
        named = np.array([look.best for look in chosen])
        samples = float(np.mean([look.samples for look in chosen]))
        return Row(rule, samples, float((named == best).mean()), float((named == groups.best).mean()))

    rows = []
    for rounds in (4, 8, 16, K):
        place = [look.rounds for look in fixed[0]].index(rounds) if rounds in [x.rounds for x in fixed[0]] else None
        if place is not None:
            rows.append(row(f"fixed {rounds}", [group[place] for group in fixed]))
    if kind != "singles" and n > 2:
        rows.append(row("ring + 2 pivots, twice", [ring_and_pivots(groups, p, kind, 2, 2) for p in range(prompts)]))
    stops = row(f"decided {GAMMA}", [look for look, _ in adaptive])
    early = np.array([look.rounds < K for look, _ in adaptive])
    wrong = np.array([look.best != audited for look, audited in adaptive])
    if early.any():
        claimed = float(np.mean([look.risk for look, _ in adaptive if look.rounds < K]))
        stops = Row(stops.rule, stops.samples, stops.long_run, stops.label, float(wrong[early].mean()), claimed)
    return Case(kind, n, judge, [*rows, stops], _risk_bins(fixed))


def _risk_bins(fixed: list[list[Look]]) -> list[RiskBin]:
    """Predicted and observed disagreement with all K rounds, over all looks before the last."""
    predicted = np.array([look.risk for group in fixed for look in group[:-1]])
    observed: Bools = np.array([look.best != group[-1].best for group in fixed for look in group[:-1]])
    places: Ints = np.digitize(predicted, RISK_BINS) - 1
    inside = [places == place for place in range(len(RISK_BINS))]
    return [RiskBin(float(predicted[x].mean()), float(observed[x].mean()), int(x.sum())) for x in inside if x.any()]


def rules_table(cases: list[Case], prompts: int) -> Table:
    table = Table(title=f"{prompts} prompts each; all pairs in both orders are n (n - 1) samples")
    for heading in ("judge", "n", "rule", "samples", "long run", "label", "wrong early: observed, claimed"):
        table.add_column(heading, no_wrap=True)
    for case in cases:
        for row in case.rows:
            risk = "" if row.wrong_early is None else f"{row.wrong_early:.3f} {row.claimed:.3f}"
            numbers = (f"{row.samples:.1f}", f"{row.long_run:.3f}", f"{row.label:.3f}", risk)
            last = row is case.rows[-1]
            table.add_row(f"{case.kind} {case.judge}", str(case.n), row.rule, *numbers, end_section=last)
    return table


def risk_table(cases: list[Case]) -> Table:
    table = Table(title=f"Predicted and observed rate at which all {K} rounds decide otherwise (looks)")
    table.add_column("judge")
    for low in RISK_BINS:
        table.add_column(f"from {low:g}")
    for n in (2, 8, 16):
        for kind in ("winners", "preferences", "scores", "singles"):
            pooled = pooled_bins([case for case in cases if (case.n, case.kind) == (n, kind)])
            if pooled:
                cells = [f"{b.predicted:.3f} {b.observed:.3f} ({b.looks})" for b in pooled]
                table.add_row(f"{kind}, {n}", *cells)
    return table


def pooled_bins(cases: list[Case]) -> list[RiskBin]:
    """The bins of several judges together."""
    inside: dict[int, list[RiskBin]] = {}
    for case in cases:
        for one in case.bins:
            inside.setdefault(int(np.digitize(one.predicted, RISK_BINS)), []).append(one)
    pooled = []
    for _, bins in sorted(inside.items()):
        weights = [one.looks for one in bins]
        predicted, observed = ([getattr(one, name) for one in bins] for name in ("predicted", "observed"))
        means = (float(np.average(values, weights=weights)) for values in (predicted, observed))
        pooled.append(RiskBin(*means, sum(weights)))
    return pooled


if __name__ == "__main__":
    main()
