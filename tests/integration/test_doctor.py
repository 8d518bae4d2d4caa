"""`grm doctor` as a user runs it."""

import json
from pathlib import Path

from tests.integration.processes import grm, grm_here


def test_an_unknown_setting_is_reported(tmp_path: Path) -> None:
    run = grm_here("doctor", "--json", "--set", "engine.kidn=fake", "--set", f"cache_dir={tmp_path}")
    first = json.loads(run.stdout)["findings"][0]
    assert run.returncode == 1
    assert (first["level"], first["check"]) == ("fail", "settings")
    assert "engine.kidn" in first["what"]


def test_a_setting_that_prevents_the_start_is_reported(tmp_path: Path) -> None:
    run = grm_here("doctor", "--json", "--set", f"judge.template={tmp_path / 'none.txt'}")
    first = json.loads(run.stdout)["findings"][0]
    assert (first["level"], first["check"]) == ("fail", "settings")
    assert "judge.template" in first["what"]


def test_an_installation_that_works(tmp_path: Path) -> None:
    run = grm("doctor", "--set", "engine.kind=fake", "--set", "http.port=0", "--set", f"cache_dir={tmp_path}")
    assert run.returncode == 0, run.stdout
    assert "all names, values and files are valid" in run.stdout


def test_a_running_server(url: str) -> None:
    run = grm_here("doctor", "--json", "--url", url)
    findings = json.loads(run.stdout)["findings"]
    assert run.returncode == 0, run.stdout
    assert {one["check"]: one["level"] for one in findings} == dict.fromkeys(
        ("live", "version", "ready", "rewards"), "ok"
    )
