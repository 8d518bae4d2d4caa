"""The arithmetic of the load benchmarks: latencies, resuming, workloads, ratios and targets."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lib.arrivals import TimedResult, closed_loop, open_loop, percentiles, poisson, rate_between
from benchmarks.lib.cells import Cells, Key
from benchmarks.lib.data import Item
from benchmarks.lib.workloads import ALL_WORKLOADS, HALF_WORKLOADS, Prompts, Workload, choose, parse_workloads
from benchmarks.serving.load import _parser
from benchmarks.serving.load_report import TARGETS, Agreement, agreements, ratio_of, report, target_status
from benchmarks.serving.load_schedule import cell_keys, schedule
from benchmarks.serving.load_systems import Answer, figures

KEY = Key("fixed", "n2k8p500", 0.0, 0)
SETTINGS = {"samples": 64}


async def test_a_late_client_does_not_hide_the_waiting_time() -> None:
    async def blocks() -> None:
        time.sleep(0.2)  # noqa: ASYNC251

    async def quick() -> None:
        await asyncio.sleep(0)

    stuck, waited = await open_loop([blocks, quick], [0.0, 0.05])
    assert stuck.latency_s >= 0.2
    assert waited.sent_s - waited.intended_s >= 0.14
    assert waited.latency_s >= 0.14


async def test_an_open_loop_does_not_wait_for_answers() -> None:
    async def slow() -> float:
        await asyncio.sleep(0.3)
        return 1.0

    done = await open_loop([slow] * 10, [0.01 * place for place in range(10)])
    assert max(each.done_s for each in done) < 2.0, "one after the other they would take 3 s"
    assert [each.sent_s >= each.intended_s for each in done] == [True] * 10


async def test_a_closed_loop_keeps_a_fixed_number_in_flight() -> None:
    running = peak = 0

    async def job() -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0.01)
        running -= 1
        return peak

    assert len(await closed_loop([job] * 9, 3)) == 9
    assert peak == 3


def test_poisson_arrivals() -> None:
    times = poisson(20.0, 0, seconds=100)
    assert times == sorted(times)
    assert 1800 < len(times) < 2200
    # Exponential gaps have a variance equal to their squared mean.
    gaps = [after - before for before, after in zip(times, times[1:], strict=False)]
    mean = sum(gaps) / len(gaps)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(mean**2, rel=0.15)
    assert poisson(20.0, 0, count=5) == times[:5]
    assert poisson(20.0, 1, count=5) != times[:5]


def test_percentiles_are_observed_values() -> None:
    assert percentiles([float(value) for value in range(1, 101)]) == {"p50": 50.0, "p95": 95.0, "p99": 99.0}
    assert percentiles([3.0, 1.0]) == {"p50": 1.0, "p95": 3.0, "p99": 3.0}
    assert percentiles([]) == {}


def test_a_rate_counts_only_events_of_its_period() -> None:
    done = [(0.5, 8.0), (1.5, 8.0), (2.0, 4.0), (2.5, 8.0)]
    assert rate_between(done, 1.0, 2.0) == 12.0


def test_cells_resume_after_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "load.jsonl"
    Cells(path, SETTINGS).add(KEY, {"samples_per_s": 2.0})
    with path.open("a") as file:
        file.write('{"key": {"system": "fixed", "workl')
    again = Cells(path, SETTINGS)
    assert KEY in again
    assert replace(KEY, round=1) not in again
    again.add(replace(KEY, round=1), {"samples_per_s": 3.0})
    assert [row["samples_per_s"] for row in Cells(path, SETTINGS).rounds("fixed", "n2k8p500")] == [2.0, 3.0]


def test_cells_of_other_settings_are_not_mixed(tmp_path: Path) -> None:
    Cells(tmp_path / "load.jsonl", SETTINGS)
    with pytest.raises(ValueError, match="other settings"):
        Cells(tmp_path / "load.jsonl", {"samples": 32})


def test_half_of_the_workloads_is_balanced() -> None:
    assert len(ALL_WORKLOADS) == 8
    for one in ("n", "k", "prompt_tokens"):
        for other in ("n", "k", "prompt_tokens"):
            pairs = [(getattr(w, one), getattr(w, other)) for w in HALF_WORKLOADS]
            assert len({pairs.count(pair) for pair in pairs}) == 1
    assert parse_workloads("n2k8p500,n4k16p1500") == (Workload(2, 8, 500), Workload(4, 16, 1500))
    with pytest.raises(ValueError, match="n2k8"):
        parse_workloads("n2k8")


def item(words: int, query: str, n: int = 2) -> Item:
    return Item(query + " w" * words, tuple("ab"[:n]), (0,), "test")


def test_items_have_the_length_of_the_workload_and_are_used_once() -> None:
    prompts = Prompts(lambda text: text.count(" w"))
    base = prompts.tokens(item(0, "q"))
    fitting = [item(500 - base + extra, f"q{extra}") for extra in (-70, 0, 70)]
    pool = [item(300, "short"), item(700, "long"), *fitting, item(500 - base, "three", n=1)]
    used: set[str] = set()
    assert choose(pool, Workload(2, 8, 500), 2, prompts, used) == fitting[:2]
    assert choose(pool, Workload(2, 16, 500), 1, prompts, used) == fitting[2:]
    with pytest.raises(ValueError, match="has 0 fitting items, 1 are needed"):
        choose(pool, Workload(2, 16, 500), 1, prompts, used)


def test_the_first_round_measures_fixed_before_the_baselines_that_copy_its_lengths() -> None:
    args = _parser().parse_args(["--data", "x"])
    turns = list(schedule(list(cell_keys(args, args.systems.split(",")))))
    order = [process for process, keys in turns if not keys[0].load]
    assert order.index("fixed") < order.index("same engine")
    assert {key.round for key in turns[0][1]} == {0}
    # The order rotates every round, and the open loops come last.
    assert len({keys[0].system for process, keys in turns if not keys[0].load and keys[0].round < 2}) > 1
    loads = [keys[0].load > 0 for _, keys in turns]
    assert loads == sorted(loads)


def test_each_load_has_processes_with_empty_prefix_caches() -> None:
    args = _parser().parse_args(["--data", "x", "--loads", "0.5,0.8"])
    turns = list(schedule(list(cell_keys(args, args.systems.split(",")))))
    assert {len({key.load for key in keys}) for _, keys in turns} == {1}
    assert sum(process == "fixed" and keys[0].load > 0 for process, keys in turns) == 2


def cell(rate: float, best: tuple[int | None, ...] = (0, 1)) -> dict[str, Any]:
    timed = [TimedResult(0.0, 0.0, 4.0, Answer(number, 8, 8, one)) for number, one in enumerate(best)]
    counted = {
        "vllm:generation_tokens_total": 1600.0,
        "vllm:prefix_cache_queries_total": 800.0,
        "vllm:prefix_cache_hits_total": 600.0,
        "vllm:prompt_tokens_by_source_total{source=local_compute}": 200.0,
    }
    conditions = {"at_s": 600.0 / rate, "machine_load": rate}
    return figures(timed, counted, 2) | {"samples_per_s": rate, "requests_per_s": rate / 8} | conditions


def test_figures_of_a_cell() -> None:
    timed = [TimedResult(1.0, 1.5, 3.0, Answer(0, 8, 6, 1)), TimedResult(0.0, 0.0, 4.0, Answer(1, 4, 4, None))]
    result = figures(timed, {"vllm:generation_tokens_total": 240.0}, n=2)
    assert (result["samples_per_s"], result["requests_per_s"], result["scores_per_s"]) == (3.0, 0.5, 5.0)
    assert (result["tokens_per_sample"], result["tokens_per_reward"], result["parsed_share"]) == (20.0, 120.0, 10 / 12)
    assert (result["p50"], result["p99"]) == (2.0, 4.0)


@pytest.fixture
def cells(tmp_path: Path) -> Cells:
    """Two rounds; in the second the machine is half as fast."""
    result = Cells(tmp_path / "load.jsonl", SETTINGS)
    rates = {"fixed": (3.0, 1.5), "separate": (2.0, 1.0), "decided": (6.0, 3.0), "n=k": (4.0, 2.0)}
    for system, of_rounds in rates.items():
        for number, rate in enumerate(of_rounds):
            best = (0, 0) if system == "decided" and number else (0, 1)
            result.add(Key(system, "n2k8p500", 0.0, number), cell(rate, best))
    return result


def test_ratios_compare_cells_of_the_same_round(cells: Cells) -> None:
    ratio = ratio_of(TARGETS[0], cells, ["n2k8p500"])
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high, ratio.rounds) == (pytest.approx(1.5), 1.5, 1.5, 2)
    assert ratio.by_workload == {"n2k8p500": pytest.approx(1.5)}
    assert ratio_of(TARGETS[3], cells, ["n2k8p500"]) is None


def test_agreement_with_full_k_and_its_floor(cells: Cells) -> None:
    decided, floor = agreements(cells, ["n2k8p500"])
    assert (decided, floor) == (Agreement(3, 4), Agreement(2, 2))


def test_the_report_states_which_targets_are_missed(cells: Cells) -> None:
    markdown = report(cells, ["fixed", "decided", "separate", "n=k"], ["n2k8p500"], "n2k8p500", ()).markdown
    lines = {line.split(" |")[0].removeprefix("| "): line for line in markdown.splitlines()}
    assert lines["fixed over separate calls, equal tokens"].endswith("| reached |")
    assert lines["fixed over n = k, equal tokens"].endswith("| NOT reached: 75% of it |")
    assert "agreement not: 75.0%" in lines["decided over separate calls, equal tokens"]
    # In the second round: 600 s over 1 sample/s and over 3 samples/s.
    assert "within 7 min of each other; the machine's load average before each was 1.0 to 6.0" in markdown
    ratio = ratio_of(TARGETS[2], cells, ["n2k8p500"])
    assert ratio is not None
    assert target_status(ratio, Agreement(99, 100)) == "reached"
