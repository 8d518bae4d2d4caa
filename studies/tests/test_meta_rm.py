"""Meta RMs on transcripts: a made-up set in the format of the real one, and planted signals."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grm_client.data.trajectories import ItemRow, read_rows
from grm_server.app.formats import judge_format, meta_template
from grm_server.grm.types import Floats
from grm_train.meta_rm.trajectories import read_data
from studies.meta_rm import study as meta_rm
from studies.meta_rm.guided import auc_within
from studies.meta_rm.raters import Rater, Samples, calibrated, flatten, held_out, judge_accuracy, raters
from studies.meta_rm.study import by_k, measure
from studies.meta_rm.transcripts import Item, Transcript, read_items


def verdicts(first: str | None, second: str | None, texts: tuple[str, str] = ("plain", "swapped")) -> dict[str, Any]:
    return {
        "swap = False": {"completion": [texts[0], "stop"], "winner": first},
        "swap = True": {"completion": [texts[1], "stop"], "winner": second},
    }


def write(path: Path, source: str, judge: str, mode: str, results: list[Any]) -> None:
    row = {"input": "2 + 2?", "output_1": "four", "output_2": "five", "label": 1, "results": results}
    folder = path / source / "evaluators" / judge / mode
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps([row]))


def test_the_loader_reads_both_orders_and_counts_what_it_leaves_out(tmp_path: Path) -> None:
    write(tmp_path, "Natural", "GPT-4", "CoT", [verdicts("1", "2")])
    # The first round repeats one critique; the second is a debate.
    rounds = [verdicts("1", "1", ("plain", "other")), verdicts("1", "1")]
    write(tmp_path, "Natural", "GPT-4", "Swap_CoT", rounds)
    write(tmp_path, "Natural", "Falcon", "CoT", [verdicts(None, "2")])
    concluded = ("Therefore, Output (a) is better.", "Output (a) is better? No. Therefore, Output (a) is better.")
    write(tmp_path, "Natural", "PaLM2", "CoT", [verdicts("1", "1", concluded)])
    write(tmp_path, "Set", "GPT-4", "Metrics_Reference", [["Is it right?", "stop"], verdicts("1", "1")])
    (item,), left_out = read_items(tmp_path)
    assert left_out == {"repeated": 1, "debate": 2, "no_verdict": 1, "no_critique": 2, "contradicted": 1}
    assert (item.query, item.responses, item.best, item.source) == ("2 + 2?", ("four", "five"), 0, "Natural")
    samples = {(s.judge, s.critique): (s.order, s.winner, s.right) for s in item.samples}
    assert samples == {
        ("GPT-4", "plain"): ((0, 1), 0, True),
        ("GPT-4", "swapped"): ((1, 0), 1, False),
        ("GPT-4", "other"): ((1, 0), 0, True),
        ("Falcon", "swapped"): ((1, 0), 1, False),
        ("PaLM2", concluded[0]): ((0, 1), 0, True),
    }
    winners = [sample.winner for sample in item.samples]
    assert item.scores.tolist() == [[6, 5] if winner == 0 else [5, 6] for winner in winners]


def test_a_folder_without_critiques_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="studies/meta_rm/transcripts.py"):
        read_items(tmp_path)


def test_exported_rows_have_the_format_of_collect_and_the_order_that_the_judge_saw(tmp_path: Path) -> None:
    write(tmp_path, "Natural", "GPT-4", "CoT", [verdicts("1", "2")])
    (item,), _ = read_items(tmp_path)
    row = json.dumps(item.row(1)).encode() + b"\n"
    (read,) = read_rows([row])
    assert isinstance(read, ItemRow)
    data = read_data([read], judge_format(), meta_template(None))
    plain, swapped = sorted(data.trajectories, key=lambda t: t.order)
    assert plain.user.index("four") < plain.user.index("five")
    assert swapped.user.index("five") < swapped.user.index("four")
    assert "plain" in plain.answer
    assert (plain.right, swapped.right) == (True, False)
    # The judge preferred the second response, which it saw first.
    assert swapped.shown == (6, 5)


def planted(items: int, informative: float, seed: int = 0) -> list[Item]:
    """Samples are right 55 % of the time; in a share `informative` of the critiques a word reveals whether they are."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(items):
        best = int(rng.integers(2))
        samples = []
        for place in range(12):
            right = bool(rng.random() < 0.55)
            word = ("sloppy", "checked")[right if rng.random() < informative else rng.integers(2)]
            critique = f"{word} analysis with remark {rng.integers(5)}"
            winner = best if right else 1 - best
            judge, order = ("Ann", "Bob")[place % 2], (place % 2, 1 - place % 2)
            samples.append(Transcript(f"S/{number}/{place}", judge, order, critique, winner, right))
        made.append(Item(f"query {number}", ("a", "b"), best, "ST"[number % 2], tuple(samples)))
    return made


def rated(items: Sequence[Item]) -> tuple[Samples, Floats, dict[str, Any]]:
    samples = flatten(items, "prompt")
    rater = dict(raters(items, samples))["tfidf"]
    p = held_out(rater, samples.right, samples.folds)
    return samples, p, measure(samples, np.full(len(p), True), p, *ballots(items))


def ballots(items: Sequence[Item]) -> tuple[Floats, Any]:
    return np.concatenate([item.scores for item in items]), np.array([item.best for item in items])


def test_a_planted_signal_helps_but_not_when_shuffled() -> None:
    items = planted(120, informative=0.6)
    samples, p, result = rated(items)
    gain = {rule: cells["gain"] for rule, cells in result["votes"].items()}
    assert result["auc"].low > 0.7
    assert result["calibration_error"] < 0.06
    assert gain["meta_hinge"].low > 0.1
    assert gain["meta_top"].low > 0.1
    for rule in ("shuffled hinge", "shuffled top"):
        # Fewer samples vote, so accuracy may drop slightly.
        assert gain[rule].low < 0.02
        assert gain[rule].value == pytest.approx(0, abs=0.05)
    ks = by_k(samples, p, *ballots(items))
    assert ks["1"]["sum"] == ks["1"]["meta_hinge"] == ks["1"]["shuffled top"]
    assert ks["all"]["meta_hinge"].value > ks["4"]["meta_hinge"].value > ks["1"]["meta_hinge"].value


def test_uninformative_words_have_an_auc_of_one_half() -> None:
    _, _, result = rated(planted(200, informative=0.0))
    assert result["auc"].low < 0.5 < result["auc"].high
    assert abs(result["votes"]["meta_hinge"]["gain"].value) < 0.05


def test_held_out_samples_are_not_used_for_training() -> None:
    """Each sample has a unique feature, so the classifier can record which ones it was trained on."""
    rng = np.random.default_rng(0)
    right, folds = rng.random(400) < 0.5, np.repeat(np.arange(4), 100)
    seen = []

    class Spy:
        def fit(self, x: Floats, y: Floats) -> "Spy":
            self.rows = set(x[:, 0])
            return self

        def decision_function(self, x: Floats) -> Floats:
            seen.append(self.rows & set(x[:, 0]))
            return np.zeros(len(x))

    p = held_out(Rater(np.arange(400.0)[:, None], Spy), right, folds)
    assert len(seen) == 16
    assert not any(seen)
    # The features carry no information, so p is the share of right samples in the other folds.
    assert p[:100] == pytest.approx(right[100:].mean(), abs=0.01)


def test_a_query_is_in_one_fold_and_a_source_can_be_a_fold() -> None:
    items = planted(40, informative=0.0)
    twice = flatten([*items, *items], "prompt")
    assert (twice.folds[: len(twice.folds) // 2] == twice.folds[len(twice.folds) // 2 :]).all()
    by_source = flatten(items, "source")
    assert by_source.folds.tolist() == [(place // 12) % 2 for place in range(480)]


def test_judges_are_recognised_by_their_own_words() -> None:
    items = planted(60, informative=0.0)
    assert judge_accuracy(flatten(items, "prompt")) == pytest.approx(0.5, abs=0.1)
    signed = [
        Item(i.query, i.responses, i.best, i.source, tuple(_signed(sample) for sample in i.samples)) for i in items
    ]
    assert judge_accuracy(flatten(signed, "prompt")) == 1


def _signed(s: Transcript) -> Transcript:
    return Transcript(s.id, s.judge, s.order, f"{s.critique} says {s.judge}", s.winner, s.right)


def test_the_auc_within_a_judge_ignores_which_judge_is_better() -> None:
    right = np.array([True, True, False, False] * 30)
    who = np.array([0, 0, 1, 1] * 30)
    prompts = np.repeat(np.arange(30), 4)
    assert auc_within(1.0 - who, right, prompts, prompts).value == 1
    # No judge is ever both right and wrong.
    assert np.isnan(auc_within(1.0 - who, right, prompts * 2 + who, prompts).value)


def test_given_logits_are_calibrated_on_the_other_folds() -> None:
    rng = np.random.default_rng(0)
    logits, folds = rng.normal(0, 2, 6000), np.repeat([0, 1], 3000)
    right = rng.random(6000) < 1 / (1 + np.exp(-0.5 * logits))
    p = calibrated(logits, right, folds)
    assert p == pytest.approx(1 / (1 + np.exp(-0.5 * logits)), abs=0.05)
    flipped = right.copy()
    flipped[:3000] = ~flipped[:3000]
    assert (calibrated(logits, flipped, folds)[:3000] == p[:3000]).all()


def test_the_whole_study_from_export_to_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)

    def random_verdicts() -> dict[str, Any]:
        first, second = rng.choice(["1", "2"], 2)
        return verdicts(first, second, ("checked it well", "sloppy and quick work"))

    for judge in ("Ann", "Bob"):
        rows = [
            {
                "input": f"query {number}",
                "output_1": "a",
                "output_2": "b",
                "label": 1,
                "results": [random_verdicts()],
            }
            for number in range(30)
        ]
        folder = tmp_path / "Natural" / "evaluators" / judge / "CoT"
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(rows))
    exported, scores = tmp_path / "rows.jsonl", tmp_path / "scores.jsonl"

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["meta_rm", "--data", str(tmp_path), *map(str, arguments)])
        meta_rm.main()

    call("--export", exported)
    samples = [sample for row in map(json.loads, exported.read_text().splitlines()) for sample in row["samples"]]
    rated = [{"id": sample["id"], "logit": 4.0 * sample["right"] + rng.normal()} for sample in samples]
    scores.write_text("".join(json.dumps(row) + "\n" for row in rated))
    call("--scores", scores, "--out", tmp_path)
    result = json.loads((tmp_path / "meta_rm.json").read_text())
    assert result["details_of"] == "scores"
    assert result["raters"]["scores"]["auc"]["value"] > 0.9
    assert (tmp_path / "meta_rm.png").stat().st_size
    scores.write_text(json.dumps(rated[0]) + "\n")
    with pytest.raises(SystemExit, match="no logit for 119 samples"):
        call("--scores", scores, "--out", tmp_path)
