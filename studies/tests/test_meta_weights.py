"""The study of simulated meta RMs: its columns match the server's code, and each meta RM has its target AUC."""

from pathlib import Path

import numpy as np
import pytest

from grm_server.grm.meta import hinge, top
from grm_server.grm.types import Floats
from studies.judges import JUDGES, simulate
from studies.meta_rm.guided import names_best
from studies.meta_weights.plot import plot
from studies.meta_weights.study import COLUMNS, EARLIER, K, calibrated, meta_scores, misfit, row, run


def cell(column: str, scores: Floats, p: Floats) -> float:
    return COLUMNS[column](scores, p, 0)


@pytest.mark.parametrize("seed", range(30))
def test_columns_match_the_functions_of_the_server(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, p = rng.integers(1, 11, (K, 2)).astype(float), rng.uniform(0.05, 0.95, K)
    scores[3] = np.nan
    assert cell("hinge", scores, p) == names_best(hinge(scores, p, 0.5, 9.0).values, 0)
    for k_meta in (1, 8, 16):
        assert cell(f"top {k_meta}", scores, p) == names_best(top(scores, p, k_meta, K).values, 0)
    difference = np.nan_to_num(scores[:, 0] - scores[:, 1])
    weights = {"sum": 1, "p": p, "p²": p**2, "odds": p / (1 - p), "hinge": np.maximum(p - 0.5, 0)}
    for column, weight in weights.items():
        assert cell(column, scores, p) == (1 + np.sign(np.sum(weight * difference))) / 2


def test_a_tie_counts_half() -> None:
    assert names_best(np.array([[5.0, 6.0], [6.0, 5.0]]), 0) == 0.5


def test_the_meta_rm_has_its_target_auc() -> None:
    rng = np.random.default_rng(0)
    fitted, tested = (simulate(JUDGES["A"], 2, K, 1000, rng) for _ in range(2))
    for bias in (0.0, 1.0):
        p, auc = calibrated(fitted, tested, 0.64, bias, rng)
        assert auc == pytest.approx(0.64, abs=0.03)
        _, right, has_scores = meta_scores(tested, 0.64, bias, rng)
        assert p[has_scores].mean() == pytest.approx(right[has_scores].mean(), abs=0.03)


def test_samples_that_prefer_the_same_response_share_a_bias() -> None:
    rng = np.random.default_rng(0)
    simulated = simulate(JUDGES["A"], 2, K, 300, rng)
    logits, right, has_scores = meta_scores(simulated, 0.5, 3.0, rng)
    within = [
        logits[i][right[i] & has_scores[i]].var(ddof=1) for i in range(300) if (right[i] & has_scores[i]).sum() > 8
    ]
    assert np.mean(within) == pytest.approx(1, abs=0.1)


def test_the_table_has_its_shape_and_can_be_drawn(tmp_path: Path) -> None:
    rows = run(1.0, 250, 0)
    assert [(r.judge, r.auc) for r in rows] == list(EARLIER)
    at = list(COLUMNS).index
    for r in rows:
        if r.auc == 0.5:
            # An uninformative meta RM: the hinge equals the sum, and one sample is worse than all.
            assert abs(r.gains[at("hinge")]) < 0.04
            assert r.gains[at("top 1")] < -0.04
        if r.auc >= 0.64:
            assert r.gains[at("hinge")] > 0
    assert 0 < misfit(rows) < 0.05
    plot(rows, list(COLUMNS), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size


def test_distances_from_the_earlier_run_are_in_standard_errors() -> None:
    cells = np.zeros((4000, len(COLUMNS)))
    cells[: round(4000 * 0.739)] = 1
    r = row("A", 0.50, 0.5, cells)
    assert r.z[0] == pytest.approx(0, abs=0.05)
    # 73.9 % against 64.7 %, both on 4000 prompts.
    assert r.z[1] == pytest.approx(0.092 / (np.sqrt(2 * 0.739 * 0.261 / 4000)), rel=0.01)
