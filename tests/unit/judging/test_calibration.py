"""The calibration that labelled answers amount to, and how it is reported."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path

import pytest

from grm_server.grm.calibration import Labelled, fit, p_label
from grm_server.judging.calibration import Bin, Calibration, Report, as_text, calibrate, load_calibration
from grm_server.judging.labels import Answers

TAU = 1.5


def answers(labelled: list[Labelled], right: int = 0) -> Answers:
    return Answers("judge", labelled, right, Counter())


def overconfident(count: int) -> list[Labelled]:
    """A judge who is surer of himself than labels bear out, by a temperature of known tau."""
    rng = random.Random(3)
    items = []
    for _ in range(count):
        p = rng.uniform(0.5, 0.999)
        item = Labelled((p, 1 - p), rng.choice([2, 4, 8]), 0)
        items.append(Labelled(item.p_best, item.k_used, int(rng.random() > p_label(item, TAU)[0])))
    return items


def test_certainty_is_brought_down_to_what_labels_bear_out() -> None:
    labelled = overconfident(2000)
    found = calibrate(answers(labelled, right=1200)).calibration
    assert found.tau == fit(labelled)
    assert found.tau == pytest.approx(TAU, rel=0.2)
    assert (found.model, found.labels, found.accuracy) == ("judge", 2000, 0.6)
    assert found.k_used == pytest.approx(sum(item.k_used for item in labelled) / 2000)
    assert found.ece_judge > 0.1
    assert found.ece_label < 0.04


def test_each_half_is_judged_by_the_other() -> None:
    """Even ones always right, odd ones always wrong. Fitted on itself, each half would look well calibrated."""
    labelled = [Labelled((0.9, 0.1), 1, i % 2) for i in range(300)]
    found = calibrate(answers(labelled)).calibration
    # The odd ones make sure of nothing, 0.5, which the even ones are judged by; and the other way around.
    assert found.ece_label == pytest.approx((0.5 + 0.9) / 2, abs=0.02)
    assert found.ece_judge == pytest.approx(0.4)


def test_bins_say_how_often_the_best_response_is_the_labelled_one() -> None:
    labelled = [Labelled((0.5, 0.3, 0.2), 1, 0)] * 100 + [Labelled((0.05, 0.95), 1, 0)] * 200
    report = calibrate(answers(labelled))
    assert report.judge[2] == Bin(100, 1.0)
    assert report.judge[4] == Bin(200, 0.0)
    assert [part.requests for part in report.judge] == [0, 0, 100, 0, 200]
    assert math.isnan(report.judge[0].right)
    assert sum(part.requests for part in report.label) == 300
    assert report.label[4].requests == 0


def test_certainty_itself_has_a_bin() -> None:
    report = calibrate(answers([Labelled((1.0, 0.0), 1, 0)] * 300))
    assert report.judge[-1] == Bin(300, 1.0)


@pytest.mark.parametrize("count", [0, 299])
def test_too_few_labels_calibrate_nothing(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} labels are too few"):
        calibrate(answers(overconfident(count)))


def test_what_is_written_can_be_read(tmp_path: Path) -> None:
    found = calibrate(answers(overconfident(300), right=150)).calibration
    path = tmp_path / "calibration.json"
    path.write_text(found.model_dump_json())
    assert load_calibration(path) == found


def test_the_report() -> None:
    found = Calibration(model="judge", tau=1.25, labels=400, k_used=6.2, accuracy=0.7, ece_judge=0.2, ece_label=0.03125)
    judge = (Bin(0, math.nan), Bin(10, 0.3), Bin(90, 0.5), Bin(100, 0.6), Bin(200, 0.8))
    report = Report(found, judge, tuple(reversed(judge)))
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
