"""Figures of the overload benchmark and of the soak test."""

import numpy as np
import pytest

from benchmarks.lib.arrivals import TimedResult
from benchmarks.robustness.soak import TABLES, growth, memory_growth
from benchmarks.serving.overload import Answer, summary, target_lines


def overload(
    *, fast: float = 0.01, deadline_latency: float = 1.9, retry_after: str | None = "3"
) -> list[TimedResult[Answer]]:
    """Each second has one good answer of 8 samples and nine refusals; the answer of second 5 is late."""
    timed = []
    for second in range(20):
        latency = 4.0 if second == 5 else deadline_latency
        timed.append(TimedResult(second, second, second + latency, Answer(200, "full_k", 8, None)))
        for place in range(1, 10):
            at = second + place / 10
            timed.append(TimedResult(at, at + 1.0, at + 1.0 + fast, Answer(429, "overloaded", 0, retry_after)))
    return timed


def test_goodput_leaves_out_the_beginning_and_late_answers() -> None:
    report = summary(overload(), peak=8.0, deadline_s=2.0, seconds=20.0)
    # 17 of the 18 seconds after the first deadline have a good answer.
    assert report["goodput_samples_per_s"] == pytest.approx(8 * 17 / 18)
    assert (report["answered"], report["answered_late"], report["refused"]) == (20, 1, 180)
    assert report["accepted_latency_s"]["p99"] == pytest.approx(4.0)
    assert report["refused_after_s"]["p99"] == pytest.approx(0.01)
    assert report["client_late_s"]["p50"] == 1.0
    assert report["retry_after_s"]["p50"] == 3.0
    assert [line.split(":")[0] for line in target_lines(report)] == ["reached", "NOT reached", "reached", "reached"]


def test_slow_refusals_and_missing_retry_after_are_reported() -> None:
    report = summary(overload(fast=0.2, retry_after=None), peak=80.0, deadline_s=5.0, seconds=20.0)
    assert [line.split(":")[0] for line in target_lines(report)] == [
        "NOT reached",
        "reached",
        "NOT reached",
        "NOT reached",
    ]
    assert report["refused_fast_share"] == 0.0


def test_a_missed_deadline_counts_as_accepted() -> None:
    timed = [TimedResult(0.0, 0.0, 2.5, Answer(504, "deadline_exceeded", 0, None))]
    report = summary(timed, peak=8.0, deadline_s=2.0, seconds=20.0)
    assert report["refused"] == 0
    assert report["accepted_latency_s"]["p99"] == 2.5
    assert report["goodput_samples_per_s"] == 0.0


def memory(per_hour: float, noise: float = 2.0) -> list[dict[str, float]]:
    rng = np.random.default_rng(0)
    return [{"at_s": float(at), "mib": 200 + per_hour * at / 3600 + noise * rng.normal()} for at in range(1800)]


def test_growth_is_distinguished_from_noise() -> None:
    leak = growth(memory(40.0), "mib", 450, 1800)
    assert leak.mib == pytest.approx(40 * 1350 / 3600, abs=1.5)
    assert not leak.flat
    noise = growth(memory(0.0), "mib", 450, 1800)
    assert abs(noise.mib) <= noise.error_mib
    assert noise.flat


def test_growth_before_the_warm_up_ends_does_not_count() -> None:
    rows = [{"at_s": float(at), "mib": min(200.0, 100 + at / 4)} for at in range(1800)]
    assert growth(rows, "mib", 450, 1800).flat
    assert not growth(rows, "mib", 0, 1800).flat


@pytest.mark.parametrize(("leak_mib", "flat"), [(0.0, True), (300.0, False)])
def test_memory_that_an_engine_frees_once_a_minute_is_no_leak(leak_mib: float, flat: bool) -> None:
    """It holds more and more free memory in the first half, and returns all of it once a minute."""
    rows = []
    for at in range(1800):
        unreturned = 400 * min(1.0, at / 900) * (at % 60) / 60
        rows.append({"at_s": float(at), "server_mib": 700.0, "engine_mib": 3500 + unreturned + leak_mib * at / 1800})
    report = memory_growth(rows, 450, 1800)
    assert report["server_mib"].flat
    assert report["engine_in_use_mib"].flat == flat
    assert report["engine_in_use_mib"].mib == pytest.approx(leak_mib * 0.75, abs=15)
    assert report["engine_mib"].flat == flat


def test_which_gauges_are_tables_of_requests() -> None:
    names = ("grm_requests_in_flight", "grm_groups_open", "vllm:num_requests_running", "vllm:num_requests_waiting")
    admission = ("grm_waiting_requests", "grm_waiting_samples", "grm_waiting_prompt_tokens", "grm_running_samples")
    assert all(TABLES.fullmatch(name) for name in (*names, *admission))
    assert not TABLES.fullmatch("grm_requests_total")
    assert not TABLES.fullmatch("grm_group_wait_seconds_sum")
