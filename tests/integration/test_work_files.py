"""Columns, options and resumed runs of `grm score` and `grm calibrate`, as a user runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.integration.processes import drawn, grm_here


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def request(number: int, **fields: Any) -> dict[str, Any]:
    return {"query": f"Question {number}?", "responses": ["A.", "B."]} | fields


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(row) for row in file.read_text().splitlines()]


def test_columns_are_carried_along_and_named_once(url: str, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(file, [request(n, source="web", label=n % 2, temprature=0.2, k=2) for n in range(20)])
    done = grm_here("score", str(file), "--out", str(out), "--url", url)
    assert done.returncode == 0, done.stderr
    assert [row["meta"] for row in rows(out)] == [
        {"source": "web", "label": n % 2, "temprature": 0.2} for n in range(20)
    ]
    notice = (
        "not sent to the judge, copied to `meta` of the output: `source`, `temprature` (do you mean `temperature`?)"
    )
    assert done.stderr.count(notice) == 1


def test_rows_of_another_shape_are_named_once(url: str, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    write(file, [{"prompt": str(n), "chosen": "A", "rejected": "B"} for n in range(20)])
    done = grm_here("score", str(file), "--url", url)
    assert done.returncode == 1
    assert done.stderr.count("rename `prompt` to `query` and put `chosen` and `rejected` into a list") == 1
    assert "20 failed: without `query` and `responses`; " in done.stderr
    done = grm_here("calibrate", str(file), "--url", url)
    assert done.returncode == 2
    assert "not used: 20 without `query` and `responses`; rename `prompt`" in done.stderr


def test_options_of_a_run_apply_to_lines_that_do_not_set_them(url: str, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(file, [request(1), request(2, k=2, aggregate="mean", seed=7), request(3, stop=None, task=None)])
    fields = ["-k", "4", "--stop", "fixed", "--seed", "1", "--aggregate", "borda", "--task", "math"]
    fields += ["--temperature", "0.7", "--max-critique-tokens", "64"]
    done = grm_here("score", str(file), "--out", str(out), "--url", url, *fields)
    assert done.returncode == 0, done.stderr
    assert [(row["k_used"], row["seed"], row["aggregate"]) for row in rows(out)] == [
        (4, 1, "borda"),
        (2, 7, "mean"),
        (4, 1, "borda"),
    ]
    assert rows(out)[0]["options"] == {
        "k": 4,
        "seed": 1,
        "stop": {"rule": "fixed"},
        "max_critique_tokens": 64,
        "temperature": 0.7,
        "aggregate": "borda",
        "task": "math",
    }


def test_a_stop_rule_with_parameters_is_json(url: str, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    write(file, [request(1)])
    done = grm_here("score", str(file), "--url", url, "--stop", '{"rule": "precision", "se": 9}')
    assert json.loads(done.stdout)["stop_reason"] == "precision"
    for broken in ("{nonsense", "[1]"):
        done = grm_here("score", str(file), "--url", url, "--stop", broken)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr


def test_a_reordered_and_mended_file_is_resumed_by_its_requests(url: str, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(file, [request(n, k=2, **{"temperature": 9} if n == 3 else {}) for n in range(10)])
    assert grm_here("score", str(file), "--out", str(out), "--url", url).returncode == 1
    ids = {row["line"]: row.get("request_id") for row in rows(out)}
    write(file, [request(n, k=2) for n in reversed(range(10))])
    before = drawn(url)
    done = grm_here("score", str(file), "--out", str(out), "--url", url, "--resume")
    assert done.returncode == 0, done.stderr
    assert "1 scored, 0 failed, 9 kept (judge fake): 2 samples" in done.stderr
    assert drawn(url) == before + 2
    assert [row["request_id"] for row in rows(out) if row["line"] != 7] == [ids[10 - n] for n in range(10) if n != 6]


def test_a_run_with_other_options_does_not_mix(url: str, tmp_path: Path) -> None:
    file, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(file, [request(n) for n in range(4)])
    assert grm_here("score", str(file), "--out", str(out), "--url", url, "-k", "2").returncode == 0
    before = out.read_bytes()
    done = grm_here("score", str(file), "--out", str(out), "--url", url, "-k", "4", "--resume")
    assert done.returncode == 2
    assert "was written with k = 2; this run has k = 4. Repeat these options, or choose another file" in done.stderr
    assert out.read_bytes() == before
    write(file, [request(n, reference="new") for n in range(4)])
    done = grm_here("score", str(file), "--out", str(out), "--url", url, "-k", "2", "--resume")
    assert done.returncode == 2
    assert "holds 4 answers, all to other requests" in done.stderr
