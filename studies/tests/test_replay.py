"""Replay of made-up logs with known truth."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.lib.estimates import ratio_of
from grm_server.grm.plan import plan
from grm_server.grm.types import Floats
from studies.replay.log import LoggedRequest, read_log
from studies.replay.study import learn, replay, waves
from studies.replay.symptoms import completion_order, duplicates, positions, runs_test, shared_noise, symptoms

K = 32


def logged(values: Floats, finished_s: Floats | None = None) -> LoggedRequest:
    """values: (K, n) in launch order; the label prefers the first response."""
    orders = tuple(draw.order for draw in plan(range(values.shape[1]), K, seed=3))
    texts = tuple(map(str, range(K)))
    times = np.arange(float(K)) if finished_s is None else finished_s
    return LoggedRequest((0,), values, orders, times, np.ones(K), texts)


def row(**changes: Any) -> dict[str, Any]:
    """A row of `grm score` in which response 0 always has 8 points and response 1 has 5."""
    samples = [
        {
            "index": draw.index,
            "order": list(draw.order),
            "principles": None,
            "critique": "Short.",
            "scores": [8, 5],
            "finished_s": 1.0,
            "completion_tokens": 20,
        }
        for draw in plan(range(2), K, seed=0)
    ]
    whole = {"line": 1, "id": {"source": "x", "best": [0]}, "rewards": [8.0, 5.0], "stop_reason": "full_k"}
    return whole | {"samples": samples} | changes


def test_rows_that_cannot_be_replayed_are_counted(tmp_path: Path) -> None:
    broken = [sample | {"scores": None, "finished_s": None} for sample in row()["samples"]]
    rows = [
        row(),
        row(),
        {"line": 2, "id": None, "error": {"code": "too_few_votes"}},
        row(stop_reason="decided"),
        row(id="mine"),
        row(samples=None),
        row(samples=[*broken[:20], *row()["samples"][20:]]),
        row(samples=row()["samples"][:8]),
    ]
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    read, left_out = read_log(path)
    assert len(read) == 2
    assert left_out == {
        "error: too_few_votes": 1,
        "stopped_early": 1,
        "no_label": 1,
        "no_samples": 1,
        "too_few_valid": 1,
        "other_k": 1,
    }
    assert read[0].values.tolist() == [[8, 5]] * K


def test_samples_are_sorted_into_launch_order(tmp_path: Path) -> None:
    whole = row()
    whole["samples"][3]["scores"] = None
    whole["samples"].reverse()
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(whole))
    read, _ = read_log(path)
    assert np.flatnonzero(np.isnan(read[0].values[:, 0])).tolist() == [3]
    assert read[0].orders == tuple(draw.order for draw in plan(range(2), K, seed=0))


def test_a_clear_judge_needs_one_wave_and_an_undecided_one_nearly_all() -> None:
    rng = np.random.default_rng(0)
    clear = [logged(np.array([8.0, 4.0]) + rng.integers(0, 2, (K, 2))) for _ in range(20)]
    prior = learn(clear)
    rules = replay(clear[0], prior, rng)
    assert rules["decided 0.05"].samples == 4
    assert rules["decided 0.05"].agreement == rules["decided 0.05"].label == 1
    assert 4 < rules["strict 0.05"].samples < K
    torn = replay(logged(np.tile([[8.0, 4.0], [4.0, 8.0]], (K // 2, 1))), prior, rng)
    assert torn["decided 0.05"].samples > 20
    assert torn["fixed 32"].label == 0.5


def test_waves_are_those_of_the_server() -> None:
    assert waves(2, 32) == [4, 8, 16, 24, 32]
    assert waves(3, 32) == [6, 12, 18, 24, 32]
    assert waves(8, 20) == [8, 16, 20]


def test_a_position_effect_and_the_gain_of_balance_are_measured() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(200):
        r = logged(rng.normal(0, 1, (K, 2)))
        for j, order in enumerate(r.orders):
            r.values[j, order[0]] += 1
        rows.append(r)
    result = positions(rows)
    assert result["effect"] == pytest.approx([0.5, -0.5], abs=4 * result["se"][0])
    # For a difference, beta^2 / sigma^2 is 1 / 2.
    assert result["gain"].low < 1.5 < result["gain"].high


def test_the_first_to_finish_may_decide_otherwise() -> None:
    values = np.array([[6.0, 5.0]] * 20 + [[5.0, 6.0]] * 12)
    first_8 = completion_order([logged(values, np.arange(float(K))[::-1])] * 3)[8]
    assert (first_8["launched"].value, first_8["finished"].value, first_8["excess"].value) == (0, 1, 1)


def test_similar_neighbours_make_few_runs() -> None:
    rng = np.random.default_rng(0)
    # Noise that is equal for eight consecutive samples.
    correlated = [logged(np.repeat(rng.normal(0, 1, (4, 2)), 8, axis=0)) for _ in range(20)]
    assert runs_test(correlated)["combined_z"] < -5
    independent = [logged(rng.normal(0, 1, (K, 2))) for _ in range(60)]
    assert abs(runs_test(independent)["combined_z"]) < 3


def test_noise_that_requests_share_is_detected() -> None:
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 1, (K, 2))
    assert 0.2 < shared_noise([logged(shared + rng.normal(0, 1, (K, 2))) for _ in range(100)]) < 0.8
    assert abs(shared_noise([logged(rng.normal(0, 1, (K, 2))) for _ in range(100)])) < 0.02


def test_repeated_and_empty_texts_are_counted_separately() -> None:
    r = logged(np.ones((K, 2)))
    texts = ("", "", "same", "same", *map(str, range(K - 4)))
    shares = duplicates([LoggedRequest(r.best, r.values, r.orders, r.finished_s, r.tokens, texts)])
    assert shares == {"empty": 2 / K, "repeated": 2 / K}


def test_every_symptom_can_be_measured_on_any_log() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 3, 4):
        values = rng.integers(1, 11, (K, n)).astype(float)
        values[5] = np.nan
        result = symptoms([logged(values), logged(np.full((K, n), 5.0))])
        assert result["ties"]["full_k"] == 0.5


def test_a_bootstrap_interval_is_over_prompts() -> None:
    estimate = ratio_of([0, 1] * 50, [1] * 100)
    assert estimate.value == 0.5
    assert estimate.high - estimate.low == pytest.approx(2 * 1.96 * 0.05, rel=0.1)
    assert np.isnan(ratio_of([0], [0]).value)
