"""`grm collect` as a user runs it, against `grm serve` with the fake engine in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grm_client.rule_reward import is_right
from tests.integration.collecting import ITEMS, N, Run, item, lines, run
from tests.integration.processes import GRM, drawn, grm, grm_here, serving


@pytest.fixture(scope="module")
def first(url: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(url, tmp_path_factory.mktemp("first"))


def test_items_become_labelled_trajectories(first: Run) -> None:
    assert "Traceback" not in first.done.stderr
    assert first.done.returncode == 1, "two lines have an error"
    assert first.drawn == ITEMS * N
    assert [row["id"] for row in first.items] == list(range(ITEMS))
    assert [row["line"] for row in first.rows] == sorted(row["line"] for row in first.rows)
    for row in first.items:
        assert row["model"] == "fake"
        verdicts = [sample["right"] for sample in row["samples"]]
        assert verdicts == [is_right(sample["scores"], row["label"]) for sample in row["samples"]]
        assert len(verdicts) == N
        expected = "too_easy" if all(verdicts) else "mixed" if any(verdicts) else "unsolved"
        assert row["difficulty"] == expected
        assert not any(sample["hinted"] for sample in row["samples"])
        assert row["usage"]["samples"] == N
    assert {row["difficulty"] for row in first.items} == {"too_easy", "mixed", "unsolved"}


def test_unused_lines_are_reported_and_the_judge_is_summed_up(first: Run) -> None:
    text = first.done.stderr
    assert f"{ITEMS} items, {ITEMS * N} trajectories, 100.0% ({ITEMS * N} of {ITEMS * N}) parsed" in text
    unused = (
        "(not used: 1 no label, 1 label of one response is not 0 or 1, 2 label is no index of a response, 1 blank, "
        "1 error invalid_body, 1 error bad_line)"
    )
    assert unused in text
    right = sum(sample["right"] for row in first.items for sample in row["samples"])
    assert f"accuracy {right / (ITEMS * N):.1%} ({right} of {ITEMS * N})" in text
    easy = sum(row["difficulty"] == "too_easy" for row in first.items)
    assert f"too easy {easy / ITEMS:.1%}" in text
    tokens = sum(sample["completion_tokens"] for row in first.items for sample in row["samples"])
    assert f"{tokens} completion tokens" in text


def test_a_second_run_sends_no_requests_and_reports_the_same(url: str, first: Run, tmp_path: Path) -> None:
    again = run(url, tmp_path, written=first.out.read_bytes())
    assert again.drawn == 0
    assert again.out.read_bytes() == first.out.read_bytes()
    assert f"{ITEMS} items" in again.done.stderr
    assert f"0 collected, 2 failed, {ITEMS} kept (judge fake)" in again.done.stderr
    assert again.done.returncode == 1, "the two lines with an error are tried again"


@pytest.mark.parametrize("torn", [b"", b'{"line": 3', b'{"lin'])
def test_a_run_that_was_stopped_resumes(url: str, first: Run, tmp_path: Path, torn: bytes) -> None:
    whole = first.out.read_bytes().splitlines(keepends=True)
    rest = run(url, tmp_path, written=b"".join(whole[:-8]) + torn)
    assert rest.drawn == 8 * N
    assert samples_of(rest) == samples_of(first)
    # The summary includes the rows of the first run.
    assert [line for line in rest.done.stderr.splitlines() if line.startswith("accuracy")] == [
        line for line in first.done.stderr.splitlines() if line.startswith("accuracy")
    ]


def samples_of(run: Run) -> list[Any]:
    return [(row["line"], row.get("samples")) for row in run.rows]


COUNT = 120
"""Items of a run that is killed in its middle."""


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def slow_url(tmp_path: Path) -> Iterator[str]:
    """A server slow enough to be stopped in the middle of a run."""
    with serving(tmp_path / "slow", "--set", "engine.fake_sample_s=0.02") as address:
        yield address


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_resumes(slow_url: str, tmp_path: Path, how: signal.Signals) -> None:
    file, out = tmp_path / "labelled.jsonl", tmp_path / "trajectories.jsonl"
    file.write_text("".join(item(number) + "\n" for number in range(COUNT)))
    command = [*GRM, "collect", str(file), "--out", str(out), "--url", slow_url, "--seed", "1", "--concurrency", "2"]
    # A test in a shell's background ignores SIGINT, and its children would inherit that.
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=_interruptible) as process:
        deadline = time.monotonic() + 30
        while not (out.exists() and out.stat().st_size > 10_000):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(process.pid, how)
        assert process.wait(timeout=30) == (-signal.SIGKILL if how is signal.SIGKILL else 130)
    before = out.read_bytes().count(b"\n")
    assert 0 < before < COUNT
    done = grm(*command[len(GRM) :])
    assert done.returncode == 0, done.stderr
    assert [json.loads(row)["line"] for row in out.read_text().splitlines()] == list(range(1, COUNT + 1))
    assert f"{COUNT} items, {COUNT * N} trajectories" in done.stderr


def test_a_hint_for_items_that_are_never_solved(url: str, first: Run, tmp_path: Path) -> None:
    hinted = run(url, tmp_path, "--hint")
    unsolved = [row for row in hinted.items if row["difficulty"] == "unsolved"]
    assert hinted.drawn == ITEMS * N + len(unsolved) * N
    for row, plain in zip(hinted.items, first.items, strict=True):
        assert row["samples"][:N] == plain["samples"]
        assert row["difficulty"] == plain["difficulty"]
        extra = row["samples"][N:]
        assert len(extra) == (N if row in unsolved else 0)
        assert all(sample["hinted"] for sample in extra)
        assert [sample["right"] for sample in extra] == [is_right(sample["scores"], row["label"]) for sample in extra]
        assert row["usage"]["samples"] == len(row["samples"])
    solved = sum(any(sample["right"] for sample in row["samples"]) for row in unsolved)
    assert f"{solved} of {len(unsolved)} solved with the hint" in hinted.done.stderr


def test_arguments_that_would_lose_data_are_refused(url: str, first: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "labelled.jsonl", tmp_path / "trajectories.jsonl"
    precious = tmp_path / "precious.jsonl"
    scored = tmp_path / "scored.jsonl"
    file.write_text("\n".join(lines()) + "\n")
    out.write_bytes(first.out.read_bytes())
    precious.write_text("mine\n")
    request = json.dumps({"query": "Q0?", "responses": ["A", "B"], "k": 1}) + "\n"
    assert grm_here("score", "-", "--out", str(scored), "--url", url, stdin=request).returncode == 0
    contents = {path: path.read_bytes() for path in tmp_path.iterdir()}
    before = drawn(url)
    for arguments, complaint in (
        (["--out", str(file)], "different files"),
        (["--out", str(out), "--format", "trl", "--sft", str(out)], "different files"),
        (["--out", str(precious)], "precious.jsonl"),
        (["--out", str(scored)], "scored.jsonl"),
        (["--out", str(out), "--format", "trl", "--sft", str(precious)], "precious.jsonl"),
        (["--out", str(out), "--sft", str(tmp_path / "sft.jsonl")], "--format"),
    ):
        done = grm_here("collect", str(file), "--url", url, *arguments)
        assert done.returncode == 2, arguments
        assert complaint in done.stderr
        assert "Traceback" not in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == contents
    assert drawn(url) == before


def test_rows_follow_their_items(url: str, first: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "labelled.jsonl", tmp_path / "trajectories.jsonl"
    file.write_text("\n".join([item(ITEMS), *reversed(lines()[1:])]) + "\n")
    out.write_bytes(first.out.read_bytes())
    before = drawn(url)
    done = grm_here("collect", str(file), "--out", str(out), "--url", url, "--seed", "1")
    assert "1 of requests that the file no longer has moved to " in done.stderr
    rows = [json.loads(row) for row in out.read_text().splitlines()]
    assert [row["id"] for row in rows if "error" not in row] == [ITEMS, *range(ITEMS - 1, 0, -1)]
    assert drawn(url) == before + N


@pytest.mark.parametrize("options", [["-n", "4"], ["--hint"], ["--seed", "2"], ["--temperature", "0.9"]])
def test_rows_of_other_options_are_refused(url: str, first: Run, tmp_path: Path, options: list[str]) -> None:
    out = tmp_path / "trajectories.jsonl"
    out.write_bytes(first.out.read_bytes())
    done = grm_here("collect", str(first.file), "--out", str(out), "--url", url, "--seed", "1", *options)
    assert done.returncode == 2
    assert "Repeat these options, or choose another file" in done.stderr
    assert out.read_bytes() == first.out.read_bytes()


def test_without_a_server_collecting_fails_with_advice_and_converting_works(first: Run, tmp_path: Path) -> None:
    file, out = tmp_path / "labelled.jsonl", tmp_path / "trajectories.jsonl"
    file.write_text("".join(item(number) + "\n" for number in range(ITEMS)))
    nobody = ["--url", "http://127.0.0.1:9", "--seed", "1"]
    done = grm_here("collect", str(file), "--out", str(out), *nobody)
    assert done.returncode == 2
    assert "grm serve" in done.stderr
    assert "Traceback" not in done.stderr
    out.write_bytes(first.out.read_bytes())
    assert grm_here("collect", str(file), "--out", str(out), "--format", "trl", *nobody).returncode == 0
    assert (tmp_path / "trajectories.trl.jsonl").exists()
