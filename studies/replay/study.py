"""Replays early stopping on a log of real samples, without sampling the judge again.

    python -m studies.replay.study samples.jsonl [--out DIR]

docs/design/replay-log.md describes how to make the log. Every row has all its samples, so each rule can stop at any
wave and be compared with full k. The samples of a row are shuffled into 50 random launch orders. In these, each place
keeps its order of responses, except for `strict`, which draws orders independently. The rules are the server's own
code, at the server's own waves, with priors learned from the first waves of the log.

Then the study checks the rules' assumptions on the log (symptoms.py). Intervals are 95 %, from a bootstrap by prompt.
Agreement means that a rule names the same response as all samples do; among ties, the first response.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.lib.estimates import Estimate, mean_of, ratio_of
from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.evidence import gather
from grm_server.grm.plan import wave_end, wave_unit
from grm_server.grm.priors import LearnedPrior, observe
from grm_server.grm.stopping import proven, rival_risks
from grm_server.grm.types import Floats, Ints, Prior
from studies.replay.log import LoggedRequest, read_log
from studies.replay.plot import plot
from studies.replay.symptoms import symptoms

SCORE_RANGE = AGGREGATES["mean"].ballot_range

PERMUTATIONS = 50
FIXED = (1, 4, 8, 16)
LEVELS = (0.05, 0.10)


@dataclass(frozen=True, slots=True)
class RuleResult:
    """Results of a rule on one prompt: means over launch orders."""

    samples: float
    agreement: float
    early: float
    """Share of launch orders in which it stopped early."""
    wrong_early: float
    """Share in which it stopped early and named another response than all samples do."""
    label: float
    """Share in which it named a response that the label prefers; m tied responses count 1/m each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path)
    parser.add_argument(
        "--out", type=Path, default=Path("studies/results"), help="folder for the JSON file and the plot"
    )
    args = parser.parse_args()
    rows, skipped = read_log(args.log)
    console = Console(width=120)
    console.print(f"{len(rows)} rows can be replayed; skipped: {skipped or 'none'}")
    if not rows:
        raise SystemExit(1)
    prior = learn(rows)
    rng = np.random.default_rng(0)
    results = [replay(row, prior, rng) for row in rows]
    result: dict[str, Any] = {"rows": len(rows), "left_out": skipped, "k": rows[0].k, "prior": asdict(prior)}
    for name, places in _groups(rows).items():
        group = [rows[place] for place in places]
        rules = summary([results[place] for place in places])
        result[name] = {"prompts": len(group), "rules": rules}
        console.print(rules_table(rules, f"{name}: {len(group)} prompts"))
        if name != "all":
            result[name]["symptoms"] = symptoms(group)
            console.print(symptoms_table(result[name]["symptoms"], name))
    console.print(f"prior learned from the first waves: {prior}")
    plain = _plain(result)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "replay.json").write_text(json.dumps(plain, indent=2) + "\n", "utf-8")
    plot(result, args.out / "replay.png")
    print(json.dumps(_headline(plain)))


def learn(rows: Sequence[LoggedRequest]) -> Prior:
    """The prior that the server would have learned from the first wave of each row."""
    learnt = LearnedPrior(AGGREGATES["mean"].prior)
    for row in rows:
        learnt = observe(learnt, row.values[: waves(row.n, row.k)[0]], "mean")
    return learnt.prior


def waves(n: int, k: int) -> list[int]:
    """Numbers of samples at which waves end, including k."""
    ends = [wave_end(0, k, wave_unit(n))]
    while ends[-1] < k:
        ends.append(wave_end(ends[-1], k, wave_unit(n)))
    return ends


def replay(row: LoggedRequest, prior: Prior, rng: np.random.Generator) -> dict[str, RuleResult]:
    """Replay every rule on one prompt."""
    looks = waves(row.n, row.k)[:-1]
    within = [_shuffled_within_orders(row, rng) for _ in range(PERMUTATIONS)]
    freely = [rng.permutation(row.k) for _ in range(PERMUTATIONS)]
    all_responses = tuple(range(row.n))
    risks = np.empty((PERMUTATIONS, len(looks)))
    for place, samples in enumerate(within):
        values, orders = row.values[samples], [row.orders[j] for j in samples]
        for look, m in enumerate(looks):
            evidence = gather(values[:m], orders[:m], prior)
            risks[place, look] = rival_risks(evidence, (row.k - m) / m, all_responses).sum()
    rules = {f"fixed {k}": _stopped(row, within, [k] * PERMUTATIONS) for k in (*FIXED, row.k)}
    for gamma in LEVELS:
        used = [next((m for m, risk in zip(looks, own, strict=True) if risk <= gamma), row.k) for own in risks]
        rules[f"decided {gamma:.2f}"] = _stopped(row, within, used)
    for delta in LEVELS:
        used = [_strict(row.values[samples], looks, delta) for samples in freely]
        rules[f"strict {delta:.2f}"] = _stopped(row, freely, used)
    return rules


def _shuffled_within_orders(row: LoggedRequest, rng: np.random.Generator) -> Ints:
    """(k,): a permutation of the samples that leaves the sequence of response orders unchanged."""
    samples = np.empty(row.k, dtype=np.intp)
    for order in set(row.orders):
        places = np.flatnonzero([o == order for o in row.orders])
        samples[places] = rng.permutation(places)
    return samples


def _strict(values: Floats, looks: Sequence[int], delta: float) -> int:
    return next((m for m in looks if proven(values[:m], len(values), SCORE_RANGE, delta)), len(values))


def _stopped(row: LoggedRequest, launches: Sequence[Ints], used: Sequence[int]) -> RuleResult:
    """Results of a rule that stops after `used[i]` samples of the launch order `launches[i]`."""
    sums = np.array([np.nansum(row.values[samples[:m]], axis=0) for samples, m in zip(launches, used, strict=True)])
    agrees, early = sums.argmax(axis=1) == row.sums.argmax(), np.array(used) < row.k
    top = sums == sums.max(axis=1, keepdims=True)
    label = top[:, list(row.best)].sum(axis=1) / top.sum(axis=1)
    return RuleResult(*map(float, (np.mean(used), agrees.mean(), early.mean(), (early & ~agrees).mean(), label.mean())))


def _groups(rows: Sequence[LoggedRequest]) -> dict[str, list[int]]:
    sizes = sorted({row.n for row in rows})
    groups = {f"n={n}": [place for place, row in enumerate(rows) if row.n == n] for n in sizes}
    return groups if len(sizes) == 1 else groups | {"all": list(range(len(rows)))}


def summary(results: Sequence[dict[str, RuleResult]]) -> dict[str, dict[str, Estimate]]:
    rules = {}
    for rule in results[0]:
        runs = [prompt[rule] for prompt in results]
        rules[rule] = {
            "samples": mean_of([run.samples for run in runs]),
            "agreement": mean_of([run.agreement for run in runs]),
            "wrong_early": ratio_of([run.wrong_early for run in runs], [run.early for run in runs]),
            "label": mean_of([run.label for run in runs]),
        }
    return rules


def rules_table(rules: dict[str, dict[str, Estimate]], title: str) -> Table:
    table = Table(title=title)
    for heading in ("rule", "samples", "agreement", "wrong among early stops", "label accuracy"):
        table.add_column(heading)
    for rule, cells in rules.items():
        table.add_row(
            rule, _show(cells["samples"], 1), *(_show(cells[c]) for c in ("agreement", "wrong_early", "label"))
        )
    return table


def symptoms_table(checks: dict[str, Any], title: str) -> Table:
    table = Table(title=f"{title}: assumptions of the rules", show_header=False)
    for m, rates in checks["completion_order"].items():
        table.add_row(
            f"disagreement of the first {m}: launched, finished, excess",
            " ".join(_show(rates[name]) for name in ("launched", "finished", "excess")),
        )
    table.add_row("correlation of length with difference", _show(checks["length"]))
    position, runs = checks["position"], checks["runs"]
    effects = zip(position["effect"], position["se"], strict=True)
    table.add_row("points for each position, s.e.", ", ".join(f"{e:+.2f} ± {se:.2f}" for e, se in effects))
    table.add_row("share of order in a difference's variance", _show(position["share_of_variance"]))
    table.add_row("gain of balanced over random orders", _show(position["gain"]))
    table.add_row(
        "runs test: prompts, share p < .05, z of all",
        f"{runs['prompts']}, {runs['share_p_below_05']:.3f}, {runs['combined_z']:+.2f}",
    )
    if checks["swap_inconsistency"]:
        table.add_row("two orders name different responses", _show(checks["swap_inconsistency"]))
    table.add_row("share of variance shared by all prompts", f"{checks['shared_noise']:.3f}")
    table.add_row("ties at the top: in a sample, over all samples", _pair(checks["ties"]))
    table.add_row("samples without text, samples that repeat another", _pair(checks["duplicates"]))
    return table


def _pair(shares: dict[str, float]) -> str:
    return ", ".join(f"{share:.3f}" for share in shares.values())


def _show(estimate: Estimate, digits: int = 3) -> str:
    if np.isnan(estimate.value):
        return "-"
    return f"{estimate.value:.{digits}f} [dim]({estimate.low:.{digits}f} to {estimate.high:.{digits}f})[/]"


def _headline(result: dict[str, Any]) -> dict[str, Any]:
    return {
        name: {
            rule: {what: round(cells[what]["value"], 4) for what in ("samples", "agreement", "label")}
            for rule, cells in group["rules"].items()
            if rule in (f"fixed {result['k']}", "decided 0.05", "decided 0.10")
        }
        for name, group in result.items()
        if isinstance(group, dict) and "rules" in group
    }


def _plain(value: Any) -> Any:
    """Convert dataclasses to dictionaries, recursively, and NaN, which JSON lacks, to null."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and np.isnan(value) else value


if __name__ == "__main__":
    main()
