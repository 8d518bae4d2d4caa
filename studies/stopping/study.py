"""Savings and cost of early stopping: the server's rules against fixed k and Adaptive-Consistency, simulated.

    python -m studies.stopping.study [--quick] [--out DIR] [--prompts 4000] [--seed 0]

For three simulated judges (studies/judges.py), 2 and 4 responses and k = 32, with a look after every 4 samples: samples
used, share of prompts with the same best response as all 32 samples, share of early stops with another one, and share
of prompts for which the truly best response is named. Then it checks the rules' promises (promises.py), and measures
what dropping losers saves with 8 and 16 responses.

Grey numbers: the result of an earlier run (earlier_run.py), and the difference in standard errors of both runs.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from grm_server.grm.types import Floats
from studies.judges import JUDGES
from studies.stopping import earlier_run, promises, rules
from studies.stopping.earlier_run import QUANTITIES, Row
from studies.stopping.plot import plot
from studies.stopping.rules import Run, Traffic

QUICK_PROMPTS = 400
GAMMA = 0.05
LEVELS = (0.01, 0.05, 0.10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_PROMPTS} prompts, without 16 responses")
    parser.add_argument(
        "--out", type=Path, default=Path("studies/results"), help="folder for the JSON file and the plot"
    )
    parser.add_argument("--prompts", type=int, default=earlier_run.PROMPTS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    prompts = QUICK_PROMPTS if args.quick else args.prompts
    console = Console(width=120)

    rows, traffics, risks = [], {}, {}
    for number, (n, judge) in enumerate(earlier_run.RULES):
        rng = np.random.default_rng([args.seed, number])
        traffics[n, judge] = traffic = rules.simulate_traffic(JUDGES[judge], n, prompts, rng)
        risks[n, judge] = rules.decided_risks(traffic)
        rows += [_row(traffic, run, n, judge, rule) for rule, run in _runs(traffic, risks[n, judge])]
    for n in (2, 4):
        console.print(rules_table([row for row in rows if row.n == n], n, prompts))
    apart = np.abs([z for row in rows for z in row.z if z is not None])
    surprises = {"cells": len(apart), "beyond_2": int((apart > 2).sum()), "beyond_3": int((apart > 3).sum())}
    console.print(f"Cells that differ by over 2 and over 3 standard errors, of all comparable cells: {surprises}\n")

    rng = np.random.default_rng([args.seed, len(traffics)])
    bins = promises.risk_bins([traffics[2, j] for j in JUDGES], [risks[2, j] for j in JUDGES])
    deceived = deceive(prompts, rng, traffics[2, "C"])
    honest = {judge: promises.honesty(JUDGES[judge], prompts, GAMMA, rng) for judge in JUDGES}
    many = {n: many_responses(n, prompts, rng) for n in ((8,) if args.quick else (8, 16))}
    for table in (risk_table(bins), *deceived_tables(deceived), honest_table(honest), many_table(many)):
        console.print(table)

    result = {
        "prompts": prompts,
        "seed": args.seed,
        "rules": [asdict(row) for row in rows],
        "apart": surprises,
        "risk": [asdict(b) for b in bins],
        "deceived": deceived,
        "honesty": {judge: asdict(h) for judge, h in honest.items()},
        "many": many,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "stopping.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    plot(rows, bins, args.out / "stopping.png")
    print(json.dumps(_summary(rows, 2) | {"n=4": _summary(rows, 4)}))


def _runs(traffic: Traffic, risks: Floats) -> Iterator[tuple[str, Run]]:
    for k in (4, 8, 16, rules.K):
        yield f"fixed {k}", rules.fixed(traffic, k)
    for level in (0.90, 0.95, 0.99) if traffic.n == 2 else (0.95,):
        yield f"Adaptive-Consistency {_share(level)}", rules.adaptive_consistency(traffic, level)
    for gamma in LEVELS:
        yield f"decided {_share(gamma)}", rules.decided(traffic, risks, gamma)
    for delta in LEVELS if traffic.n == 2 else (0.05,):
        yield f"strict {_share(delta)}", rules.strict(traffic, delta)


def _row(traffic: Traffic, run: Run, n: int, judge: str, rule: str) -> Row:
    agrees, early = run.chosen == traffic.winner, run.used < rules.K
    stops = int(early.sum())
    values = (
        float(run.used.mean()),
        float(agrees.mean()),
        float(1 - agrees[early].mean()) if stops else None,
        float((run.chosen == traffic.best).mean()),
    )
    return earlier_run.compare(n, judge, rule, values, len(agrees), stops, float(run.used.std()))


def deceive(orderings: int, rng: np.random.Generator, like: Traffic) -> dict[str, Any]:
    """Error rates on the adversarial populations: `strict` on each, `decided` on the first."""
    populations = {name: promises.deceive(d, orderings, rng, like.prior) for name, d in promises.POPULATIONS.items()}
    first = next(iter(populations.values()))
    return {
        "strict": {
            name: {delta: promises.strict_errors(traffic, delta) for delta in LEVELS}
            for name, traffic in populations.items()
        },
        "decided": {look: promises.decided_errors(first, GAMMA, look) for look in earlier_run.DECEIVED},
    }


def many_responses(n: int, prompts: int, rng: np.random.Generator) -> dict[str, tuple[float, float, float]]:
    """Rule -> tokens, agreement and label accuracy, for judge C."""
    traffic = rules.simulate_traffic(JUDGES["C"], n, prompts, rng)
    whole = rules.sample_tokens(n)
    runs = {f"fixed {k}": rules.fixed(traffic, k) for k in (rules.K, 8)}
    runs["decided .05"] = rules.decided(traffic, rules.decided_risks(traffic), GAMMA)
    rows = {rule: (run, run.used * whole) for rule, run in runs.items()}
    rows["decided .05, dropping"] = rules.eliminating(traffic, GAMMA, server_waves=False)
    rows["the same, the server's waves"] = rules.eliminating(traffic, GAMMA, server_waves=True)
    return {
        rule: (
            float(tokens.mean()),
            float((run.chosen == traffic.winner).mean()),
            float((run.chosen == traffic.best).mean()),
        )
        for rule, (run, tokens) in rows.items()
    }


def rules_table(rows: list[Row], n: int, prompts: int) -> Table:
    table = Table(title=f"{n} responses, {prompts} prompts: this run, [dim]earlier run, difference in s.e.[/]")
    for heading in ("judge", "rule", *QUANTITIES):
        table.add_column(heading, no_wrap=True)
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        last = after is None or after.judge != row.judge
        digits = (1, 3, 3, 3)
        cells = [_cell(*numbers) for numbers in zip(row.values, row.earlier, row.z, digits, strict=True)]
        table.add_row(row.judge, row.rule, *cells, end_section=last)
    return table


def _cell(value: float | None, earlier: float | None, z: float | None, digits: int) -> str:
    cell = "-" if value is None else f"{value:.{digits}f}"
    if earlier is not None and value is not None:
        cell += f" [dim]{earlier:.{digits}f}[/]"
    if z is not None:
        cell += f" [dim]{z:+.1f}[/]" if abs(z) <= 2 else f" [bold red]{z:+.1f}[/]"
    return cell


def risk_table(bins: list[promises.RiskBin]) -> Table:
    table = Table(title="Risk of `decided` at 4, 8 and 16 samples")
    for heading in ("predicted", "observed", "looks", "[dim]earlier: predicted, observed[/]"):
        table.add_column(heading)
    # The earlier run has no counterpart of the first bin.
    for b, earlier in itertools.zip_longest(bins, (None, *earlier_run.RISK)):
        before = "" if earlier is None else f"[dim]{earlier[0]:.3f} {earlier[1]:.3f}[/]"
        table.add_row(f"{b.predicted:.3f}", f"{b.observed:.3f}", str(b.looks), before)
    return table


def deceived_tables(deceived: dict[str, Any]) -> tuple[Table, Table]:
    strict = Table(title="`strict` on adversarial scores: error rate (samples)")
    strict.add_column("differences")
    for delta in LEVELS:
        strict.add_column(f"delta {delta:g}", justify="right")
    for name, errors in deceived["strict"].items():
        strict.add_row(name, *(f"{errors[delta][0]:.4f} ({errors[delta][1]:.1f})" for delta in LEVELS))
    strict.caption = "earlier run, maximum: " + ", ".join(f"{e:g}" for e in earlier_run.STRICT_ERRORS.values())
    decided = Table(
        title="`decided` .05 on the first of them", caption="its blind spot: a flaw that few samples notice"
    )
    for heading in ("first look", "named the wrong one", "earlier"):
        decided.add_column(heading, justify="right")
    for look, errors in deceived["decided"].items():
        decided.add_row(str(look), f"{errors:.2f}", f"{earlier_run.DECEIVED[look]:.2f}")
    return strict, decided


def honest_table(honest: dict[str, promises.Honesty]) -> Table:
    table = Table(title=f"Answers against {promises.FRESH} fresh samples; [dim]earlier run[/]")
    at = " ".join(map(str, promises.HONEST_AT))
    for heading in (
        "judge",
        "margin after\n`decided` .05: raw,\nposterior, true",
        "the same,\nstopped at 4",
        "p_best there:\nclaimed, true",
        f"calibration error\nof p_best\nat k = {at}",
        f"reward +- 1.645 se\ncovers, at\nk = {at}",
    ):
        table.add_column(heading)
    for judge, h in honest.items():
        table.add_row(
            judge,
            _margins(h.all, earlier_run.MARGINS.get(judge)),
            _margins(h.at_4, earlier_run.MARGINS_AT_4.get(judge)),
            f"{h.claimed:.3f} {h.right:.3f}",
            _series(h.ece),
            _series(h.coverage),
        )
    return table


def _margins(m: promises.Margins, earlier: tuple[float, float, float] | None) -> str:
    before = "" if earlier is None else "\n[dim]{:.2f} {:.2f} {:.2f}[/]".format(*earlier)
    return f"{m.raw:.2f} {m.posterior:.2f} {m.true:.2f}{before}"


def many_table(many: dict[int, dict[str, tuple[float, float, float]]]) -> Table:
    table = Table(title="many responses, judge C; [dim]earlier[/]")
    for heading in ("n", "rule", "tokens", "agreement", "label accuracy"):
        table.add_column(heading)
    for n, runs in many.items():
        for rule, values in runs.items():
            earlier = earlier_run.MANY[n].get(rule, (None,) * 3)
            cells = [_cell(new, old, None, d) for new, old, d in zip(values, earlier, (0, 3, 3), strict=True)]
            table.add_row(str(n), rule, *cells, end_section=rule == list(runs)[-1])
    return table


def _summary(rows: list[Row], n: int) -> dict[str, dict[str, float | None]]:
    rule = f"decided {_share(GAMMA)}"
    return {
        row.judge: {"k_used": row.values[0], "agreement": row.values[1]}
        for row in rows
        if row.n == n and row.rule == rule
    }


def _series(numbers: dict[int, float]) -> str:
    return " ".join(f"{number:.3f}" for number in numbers.values())


def _share(level: float) -> str:
    return f"{level:.2f}".removeprefix("0")


if __name__ == "__main__":
    main()
