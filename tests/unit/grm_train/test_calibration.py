"""Fitting a calibration on labelled answers, and reporting it."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from grm_server.grm.calibration import LabelledAnswer, fit, p_label
from grm_server.judging.calibration import Calibration, load_calibration
from grm_train.calibration import Bin, Fit, Report, as_text, calibrate
from grm_train.labels import Answers

TAU = 1.5


def answers(labelled: list[LabelledAnswer], right: int = 0) -> Answers:
    return Answers("judge", labelled, right, Counter())


def overconfident(count: int) -> list[LabelledAnswer]:
    """A judge that is more certain than its labels justify, by a temperature of known tau."""
    rng = random.Random(3)
    items = []
    for _ in range(count):
        p = rng.uniform(0.5, 0.999)
        item = LabelledAnswer((p, 1 - p), rng.choice([2, 4, 8]), 0)
        items.append(LabelledAnswer(item.p_best, item.k_used, int(rng.random() > p_label(item, TAU)[0])))
    return items


def test_the_fit_recovers_the_temperature_and_lowers_the_calibration_error() -> None:
    labelled = overconfident(2000)
    result = calibrate(answers(labelled, right=1200)).fit
    assert result.tau == fit(labelled)
    assert result.tau == pytest.approx(TAU, rel=0.2)
    assert (result.model, result.labels, result.accuracy) == ("judge", 2000, 0.6)
    assert result.k_used == pytest.approx(sum(item.k_used for item in labelled) / 2000)
    assert result.ece_judge > 0.1
    assert result.ece_label < 0.04


def test_each_half_is_judged_by_the_fit_on_the_other_half() -> None:
    """Even requests are always right, odd ones always wrong. Fitted on itself, each half would look well calibrated."""
    labelled = [LabelledAnswer((0.9, 0.1), 1, i % 2) for i in range(300)]
    result = calibrate(answers(labelled)).fit
    # The fit on the odd half gives 0.5, which is used for the even half; and the other way around.
    assert result.ece_label == pytest.approx((0.5 + 0.9) / 2, abs=0.02)
    assert result.ece_judge == pytest.approx(0.4)


def test_bins_hold_how_often_the_best_response_is_the_labelled_one() -> None:
    labelled = [LabelledAnswer((0.5, 0.3, 0.2), 1, 0)] * 100 + [LabelledAnswer((0.05, 0.95), 1, 0)] * 200
    report = calibrate(answers(labelled))
    assert report.judge[2] == Bin(100, 1.0)
    assert report.judge[4] == Bin(200, 0.0)
    assert [part.requests for part in report.judge] == [0, 0, 100, 0, 200]
    assert math.isnan(report.judge[0].right)
    assert sum(part.requests for part in report.label) == 300
    assert report.label[4].requests == 0


def test_probability_1_is_in_the_last_bin() -> None:
    report = calibrate(answers([LabelledAnswer((1.0, 0.0), 1, 0)] * 300))
    assert report.judge[-1] == Bin(300, 1.0)


@pytest.mark.parametrize("count", [0, 299])
def test_too_few_labels_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} labels are too few"):
        calibrate(answers(overconfident(count)))


def test_the_server_reads_what_calibrate_fitted(tmp_path: Path) -> None:
    """As `grm calibrate` writes it: the fit has exactly the fields of the file."""
    result = calibrate(answers(overconfident(300), right=150)).fit
    path = tmp_path / "calibration.json"
    path.write_text(Calibration(**asdict(result)).model_dump_json())
    assert load_calibration(path).model_dump() == asdict(result)


def test_the_report() -> None:
    numbers = Fit(model="judge", tau=1.25, labels=400, k_used=6.2, accuracy=0.7, ece_judge=0.2, ece_label=0.03125)
    judge = (Bin(0, math.nan), Bin(10, 0.3), Bin(90, 0.5), Bin(100, 0.6), Bin(200, 0.8))
    report = Report(numbers, judge, tuple(reversed(judge)))
    assert as_text(report).splitlines() == [
        "probability of the best    right, by p_best    right, by p_best_label",
        "0 to 20 %                                 -                80% of 200",
        "20 to 40 %                        30% of 10                60% of 100",
        "40 to 60 %                        50% of 90                 50% of 90",
        "60 to 80 %                       60% of 100                 30% of 10",
        "80 to 100 %                      80% of 200                         -",
        "calibration error                     0.200                     0.031",
        "accuracy 70.0%, tau 1.250, k 6.2 on average",
    ]
