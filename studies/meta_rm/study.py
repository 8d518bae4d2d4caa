"""The value of a meta RM on real critiques: how well it ranks right above wrong ones, and how much its votes gain.

    python -m studies.meta_rm.study --data PATH/TO/LLMBar [--quick] [--split prompt|source] [--out DIR]
    python -m studies.meta_rm.study --data PATH/TO/LLMBar --export rows.jsonl    # input for your own meta RM, then
    python -m studies.meta_rm.study --data PATH/TO/LLMBar --scores scores.jsonl  # {"id": sample, "logit": ...} a line

Samples are critiques of each pair by six judges in both orders (studies/meta_rm/transcripts.py). A sample is right if
it prefers the response that the label prefers. Every p is held out: trained and calibrated (Platt) on other prompts,
or, with `--split source`, on the other parts of the set. Votes use the server's own code, with k_meta half of k.

A meta RM that only recognises good judges would look good here, but would be useless to a server with one judge. So AUC
is also reported between samples of the same judge, votes also on the samples of one judge alone, and the meta RM is
compared with raters that do not read the critique (studies/meta_rm/raters.py). `shuffled` is `meta_hinge` and
`meta_top` with the p of a prompt shuffled among its samples, which must be no better than the sum.

Intervals are 95 %, from a bootstrap by prompt. If m responses tie at the top, each counts 1/m.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from benchmarks.lib.estimates import Estimate, mean_of
from grm_server.grm.types import Bools, Floats, Ints
from grm_train.meta_rm.quality import calibration_error
from studies.meta_rm.guided import auc_within, names_best, names_best_by_hinge, names_best_by_top
from studies.meta_rm.plot import plot
from studies.meta_rm.raters import Samples, calibrated, fits, flatten, held_out, judge_accuracy, raters
from studies.meta_rm.tables import auc_table, k_table, votes_table
from studies.meta_rm.transcripts import Item, read_items

QUICK_ITEMS = 100
RULES = ("sum", "meta_hinge", "meta_top", "shuffled hinge", "shuffled top")
KS = (1, 2, 4, 8, 12)
DRAWS = 20
"""Random subsets of an item's samples for each k, and shuffles of p."""

Votes = dict[str, Floats]
"""Rule -> (items,): 1 if it names the better response, 0 if not, a share for a tie."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of LLMBar with the judges' results")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_ITEMS} items")
    parser.add_argument("--split", choices=("prompt", "source"), default="prompt", help="what a fold holds out")
    parser.add_argument("--scores", type=Path, help="file of logits of your meta RM, measured like the other raters")
    parser.add_argument("--export", type=Path, help="write the samples to this file as rows of `grm collect`, and exit")
    parser.add_argument(
        "--out", type=Path, default=Path("studies/results"), help="folder for the JSON file and the plot"
    )
    args = parser.parse_args()
    items, left_out = read_items(args.data)
    if args.quick:
        items = sorted(items, key=lambda item: item.group)[:QUICK_ITEMS]
    if args.export:
        rows = [json.dumps(item.row(line)) + "\n" for line, item in enumerate(items, 1)]
        args.export.write_text("".join(rows), "utf-8")
        return
    console = Console(width=165)
    samples = flatten(items, args.split)
    console.print(f"{len(items)} items, {len(samples.right)} samples; left out: {left_out}")

    ps = {"scores": _from_file(args.scores, items, samples)} if args.scores else {}
    ps |= _trained(items, samples, console)
    best = np.array([item.best for item in items])
    scores = np.concatenate([item.scores for item in items])
    all_samples = np.full(len(samples.right), True)
    results = {name: measure(samples, all_samples, p, scores, best) for name, p in ps.items()}
    # Details are for the first rater: the user's meta RM if given, else `tfidf`.
    name, p = next(iter(ps.items()))
    source = np.array([items[place].source for place in samples.item])
    groups = {s: source == s for s in sorted(set(source))}
    groups |= {f"{judge} alone": samples.judge == number for number, judge in enumerate(samples.judges)}
    parts = {group: measure(samples, own, p, scores, best) for group, own in groups.items()}
    ks = by_k(samples, p, scores, best)
    console.print(auc_table(results, "AUC of right against wrong samples of a prompt"))
    console.print(votes_table(results, "label accuracy in %, all samples"))
    console.print(auc_table(parts, f"AUC of {name}, by part of the set and by judge"))
    console.print(votes_table(parts, "label accuracy in %"))
    console.print(k_table(ks, name))

    result = {
        "items": len(items),
        "samples": len(samples.right),
        "left_out": left_out,
        "split": args.split,
        "judge_from_words": judge_accuracy(samples),
        "raters": results,
        "details_of": name,
        "parts": parts,
        "by_k": ks,
    }
    console.print(f"accuracy of predicting the judge from the words: {result['judge_from_words']:.3f}")
    stem = "meta_rm" if args.split == "prompt" else "meta_rm_by_source"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"{stem}.json").write_text(json.dumps(result, indent=2, default=asdict) + "\n", "utf-8")
    plot(results, ks, name, args.out / f"{stem}.png")
    print(json.dumps({name: _headline(f) for name, f in results.items()}))


def _trained(items: Sequence[Item], samples: Samples, console: Console) -> dict[str, Floats]:
    results = dict(raters(items, samples))
    with Progress(console=console) as progress:
        task = progress.add_task("classifiers", total=len(results) * fits(samples.folds))
        return {
            name: held_out(rater, samples.right, samples.folds, lambda: progress.advance(task))
            for name, rater in results.items()
        }


def _from_file(path: Path, items: Iterable[Item], samples: Samples) -> Floats:
    """Calibrated p from a file of logits. Raises SystemExit unless every sample has a logit."""
    logits = {row["id"]: row["logit"] for row in map(json.loads, path.read_text("utf-8").splitlines())}
    ids = [sample.id for item in items for sample in item.samples]
    if missing := [sample for sample in ids if sample not in logits]:
        raise SystemExit(f"{path} has no logit for {len(missing)} samples; the first is {missing[0]}")
    return calibrated(np.array([logits[sample] for sample in ids], dtype=float), samples.right, samples.folds)


def measure(samples: Samples, own: Bools, p: Floats, scores: Floats, best: Ints) -> dict[str, Any]:
    """For the samples selected by `own` (m,): AUC and calibration error of p, and accuracy of the votes with it."""
    item, right = samples.item[own], samples.right[own]
    return {
        "auc": auc_within(p[own], right, item, item),
        "auc_same_judge": auc_within(p[own], right, samples.by_judge[own], item),
        "calibration_error": calibration_error(p[own], right),
        "votes": estimates(votes(item, p[own], scores[own], best)),
    }


def votes(item: Ints, p: Floats, scores: Floats, best: Ints) -> Votes:
    """item: (m,), the item of each sample; best: (items,). Items without samples are skipped."""
    rng = np.random.default_rng(0)
    cells = []
    for place in np.unique(item):
        rows = item == place
        cells.append(_vote(p[rows], scores[rows], int(best[place]), [rng.permutation(p[rows]) for _ in range(DRAWS)]))
    return dict(zip(RULES, np.array(cells).T, strict=True))


def _vote(p: Floats, scores: Floats, best: int, shuffled: Sequence[Floats]) -> tuple[float, ...]:
    """(rules,): the result of each rule on one item."""
    half = -(-len(p) // 2)
    return (
        names_best(scores, best),
        names_best_by_hinge(scores, p, best),
        names_best_by_top(scores, p, best, half),
        float(np.mean([names_best_by_hinge(scores, other, best) for other in shuffled])),
        float(np.mean([names_best_by_top(scores, other, best, half) for other in shuffled])),
    )


def estimates(votes: Votes) -> dict[str, Any]:
    """Rule -> accuracy, and its gain over the sum on the same items."""
    return {rule: {"accuracy": mean_of(right), "gain": mean_of(right - votes["sum"])} for rule, right in votes.items()}


def by_k(samples: Samples, p: Floats, scores: Floats, best: Ints) -> dict[str, dict[str, Estimate]]:
    """k -> rule -> accuracy, over random subsets of k samples of each item; "all" uses all samples."""
    rng = np.random.default_rng(0)
    rows = [np.flatnonzero(samples.item == place) for place in range(len(best))]
    results = {}
    for k in KS:
        cells = np.zeros((len(best), len(RULES)))
        for place, own in enumerate(rows):
            for _ in range(DRAWS):
                drawn = rng.choice(own, min(k, len(own)), replace=False)
                shuffled = [rng.permutation(p[drawn])]
                cells[place] += np.array(_vote(p[drawn], scores[drawn], int(best[place]), shuffled)) / DRAWS
        results[str(k)] = {rule: mean_of(cells[:, c]) for c, rule in enumerate(RULES)}
    all_samples = votes(samples.item, p, scores, best)
    return results | {"all": {rule: mean_of(right) for rule, right in all_samples.items()}}


def _headline(results: dict[str, Any]) -> dict[str, float]:
    ranks = {"auc": results["auc"], "auc_same_judge": results["auc_same_judge"]}
    accuracies = {rule: cells["accuracy"] for rule, cells in results["votes"].items()}
    return {name: round(estimate.value, 4) for name, estimate in (ranks | accuracies).items()}


if __name__ == "__main__":
    main()
