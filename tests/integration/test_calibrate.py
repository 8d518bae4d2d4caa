"""`grm calibrate` against a server with the fake engine, and a server that uses the calibration."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from grm_server.judging.calibration import load_calibration
from tests.integration.processes import drawn, grm_here, serving

FIXED = {"k": 2, "stop": {"rule": "fixed"}}


def labelled(number: int, **fields: Any) -> str:
    return json.dumps(
        {"id": number, "query": f"Q{number}?", "responses": ["A", "B"], "label": number % 2, **FIXED} | fields
    )


def lines() -> list[str]:
    """306 usable requests and seven unusable lines."""
    unusable = [
        labelled(1000, label=None),
        labelled(1001, label=2),
        labelled(1002, label=True),
        labelled(1003, responses=["A"], label=0),
        labelled(1004, k=10_000),
        "no JSON",
        "",
    ]
    usable = [labelled(number) for number in range(306)]
    return usable[:100] + unusable + usable[100:]


class Run(NamedTuple):
    """One run of `grm calibrate`."""

    file: Path
    out: Path
    done: subprocess.CompletedProcess[str]
    drawn: int
    """Samples that the server drew for it."""

    @property
    def answers(self) -> Path:
        return self.file.with_suffix(".answers.jsonl")

    def again(self, url: str, folder: Path, lines: list[str] | None = None) -> Run:
        """Run in another folder, with the answers so far; `lines` replace the requests."""
        file = Path(shutil.copy(self.file, folder))
        shutil.copy(self.answers, folder)
        if lines is not None:
            file.write_text("\n".join(lines) + "\n")
        return run(url, file)


def run(url: str, file: Path) -> Run:
    out, before = file.parent / "calibration.json", drawn(url)
    done = grm_here("calibrate", str(file), "--out", str(out), "--url", url, "--seed", "1")
    return Run(file, out, done, drawn(url) - before)


@pytest.fixture(scope="module")
def first(url: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    file = tmp_path_factory.mktemp("first") / "labelled.jsonl"
    file.write_text("\n".join(lines()) + "\n")
    return run(url, file)


def test_labels_become_a_calibration_and_a_report(first: Run) -> None:
    assert first.done.returncode == 0, first.done.stderr
    assert first.drawn == 306 * 2
    used = (
        "306 of 313 lines used (not used: 1 no label, 2 label is not the index of a response, 1 one response, 1 blank, "
        "1 error limit_exceeded (k), 1 error bad_line)"
    )
    assert used in first.done.stderr
    assert f"grm serve --set stopping.calibration={first.out}" in first.done.stderr
    rows = [json.loads(row) for row in first.answers.read_text().splitlines()]
    scored = [row for row in rows if "error" not in row]
    assert [row["id"] for row in scored] == list(range(306))
    assert {row["seed"] for row in scored} == {1}
    calibration = load_calibration(first.out)
    assert (calibration.model, calibration.labels, calibration.k_used) == ("fake", 306, 2.0)
    assert calibration.accuracy == sum(row["best"] == row["id"] % 2 for row in scored) / 306
    # A hash knows nothing about the labels: far too certain before calibration, well calibrated after it.
    assert calibration.ece_label < calibration.ece_judge
    assert f"{calibration.ece_judge:.3f}" in first.done.stdout


def test_a_second_run_sends_no_requests(url: str, first: Run, tmp_path: Path) -> None:
    again = first.again(url, tmp_path)
    assert again.done.returncode == 0, again.done.stderr
    assert again.drawn == 0
    assert again.out.read_bytes() == first.out.read_bytes()
    assert again.done.stdout == first.done.stdout


def test_a_run_that_was_stopped_resumes(url: str, first: Run, tmp_path: Path) -> None:
    whole = first.answers.read_bytes()
    file = Path(shutil.copy(first.file, tmp_path))
    file.with_suffix(".answers.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:300]) + b'{"line": 3')
    rest = run(url, file)
    assert rest.drawn == 8 * 2
    assert load_calibration(rest.out).labels == 306
    assert rest.answers.read_bytes().count(b"\n") == whole.count(b"\n")


def test_a_corrected_label_counts_and_costs_nothing(url: str, first: Run, tmp_path: Path) -> None:
    corrected = [line.replace('"label": 1', '"label": 0') for line in lines()]
    again = first.again(url, tmp_path, corrected)
    assert again.drawn == 0
    best = [row["best"] for row in map(json.loads, first.answers.read_text().splitlines()) if "error" not in row]
    assert load_calibration(again.out).accuracy == best.count(0) / 306


def test_other_lines_keep_the_answers_of_those_that_remain(url: str, first: Run, tmp_path: Path) -> None:
    again = first.again(url, tmp_path, lines()[1:])
    assert again.done.returncode == 0, again.done.stderr
    assert again.drawn == 0
    assert load_calibration(again.out).labels == 305
    assert "305 kept (judge fake), 1 of requests that the file no longer has" in again.done.stderr


def test_answers_to_other_requests_are_refused(url: str, first: Run, tmp_path: Path) -> None:
    again = first.again(url, tmp_path, [labelled(number, query="Another") for number in range(300)])
    assert again.done.returncode == 2
    assert "holds 306 answers, all to other requests; choose another file" in again.done.stderr
    assert again.answers.read_bytes() == first.answers.read_bytes()
    assert not again.out.exists()


def test_mended_lines_are_scored_again(url: str, tmp_path: Path) -> None:
    file = tmp_path / "labelled.jsonl"
    file.write_text("".join(labelled(number, temperature=9) + "\n" for number in range(300)))
    broken = run(url, file)
    assert broken.done.returncode == 2
    assert "300 failed: invalid_body (temperature) (first: line 1" in broken.done.stderr
    file.write_text("".join(labelled(number) + "\n" for number in range(300)))
    mended = run(url, file)
    assert mended.done.returncode == 0, mended.done.stderr
    assert "300 of 300 lines used\n" in mended.done.stderr


def test_a_server_with_the_calibration_answers_p_best_label(url: str, first: Run, tmp_path: Path) -> None:
    body = {"query": "Q", "responses": ["A", "B"], "seed": 1}
    with serving(tmp_path, "--set", f"stopping.calibration={first.out}") as calibrated:
        answer = httpx.post(f"{calibrated}/v1/rewards", json=body).json()
    assert sum(answer["p_best_label"]) == pytest.approx(1.0)
    assert max(answer["p_best_label"]) < max(answer["p_best"])
    assert httpx.post(f"{url}/v1/rewards", json=body).json()["p_best_label"] is None


def test_too_few_labels_are_refused_before_anything_is_scored(url: str, tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text("".join(labelled(number) + "\n" for number in range(299)) + labelled(299, label=None) + "\n")
    before = drawn(url)
    done = grm_here("calibrate", str(file), "--out", str(tmp_path / "c.json"), "--url", url)
    assert done.returncode == 2
    assert "299 labelled requests are too few; 300 are needed (not used: 1 no label)" in done.stderr
    assert drawn(url) == before
    assert [path.name for path in tmp_path.iterdir()] == ["few.jsonl"]


def test_too_few_answers_are_refused_and_kept(url: str, tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text("".join(labelled(number, **{"k": 10_000} if number > 250 else {}) + "\n" for number in range(300)))
    done = grm_here("calibrate", str(file), "--out", str(tmp_path / "c.json"), "--url", url)
    assert done.returncode == 2
    assert "251 labels are too few" in done.stderr
    assert "49 error limit_exceeded" in done.stderr
    assert "Traceback" not in done.stderr
    assert len((tmp_path / "few.answers.jsonl").read_text().splitlines()) == 300
    assert not (tmp_path / "c.json").exists()


def test_arguments_that_would_lose_data_are_refused(url: str, first: Run, tmp_path: Path) -> None:
    file = Path(shutil.copy(first.file, tmp_path))
    for arguments in (["--out", str(file)], ["--answers", str(file)]):
        done = grm_here("calibrate", str(file), "--url", url, *arguments)
        assert done.returncode == 2
        assert "three different files" in done.stderr
    precious = tmp_path / "precious.txt"
    precious.write_text("mine\n")
    arguments = ["--out", str(tmp_path / "c.json"), "--answers", str(precious)]
    assert grm_here("calibrate", str(file), "--url", url, *arguments).returncode == 2
    assert precious.read_text() == "mine\n"


def test_without_a_server_the_error_says_what_to_do(first: Run, tmp_path: Path) -> None:
    file = shutil.copy(first.file, tmp_path)
    done = grm_here("calibrate", str(file), "--out", str(tmp_path / "c.json"), "--url", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "grm serve" in done.stderr
    assert "Traceback" not in done.stderr
