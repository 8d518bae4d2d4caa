"""`grm collect --format` on rows of judges with formats of their own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from grm_server.grm.presets import preset_source
from tests.integration.collecting import Run, run


@pytest.fixture(scope="module")
def first(url: str, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(url, tmp_path_factory.mktemp("first"))


def rows_of(first: Run, name: str) -> bytes:
    written = first.out.read_bytes()
    assert b'"format":"deepseek-grm"' in written.replace(b": ", b":"), "rows name the format that served them"
    return written.replace(b'"deepseek-grm"', json.dumps(name).encode())


def test_a_file_of_an_earlier_version_is_resumed(url: str, first: Run, tmp_path: Path) -> None:
    new = {"thought", "points", "verdict"}
    rows = [json.loads(line) for line in first.out.read_text().splitlines()]
    for row in rows:
        row.pop("format", None)
        for sample in row.get("samples", ()):
            assert row["model"] is None or sample["scores"] is None or {"points", "verdict"} <= sample.keys()
            for name in new & sample.keys():
                del sample[name]
    old = "".join(json.dumps(row) + "\n" for row in rows).encode()
    done = run(url, tmp_path, "--format", "trl", written=old)
    assert done.drawn == 0
    examples = [json.loads(line) for line in (tmp_path / "trajectories.trl.jsonl").read_text().splitlines()]
    assert examples
    assert all(example["completion"][0]["content"].startswith("Specific Criteria:") for example in examples)


def test_a_format_file_of_ones_own(url: str, first: Run, tmp_path: Path) -> None:
    written = rows_of(first, "mine")
    refused = run(url, tmp_path, "--format", "trl", written=written).done
    assert refused.returncode == 2
    assert "'mine'" in refused.stderr
    assert "--judge-format" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not list(tmp_path.glob("*.trl.jsonl*")), "nor a part of it"
    path = tmp_path / "mine.toml"
    path.write_text((preset_source("plain") or "").replace('name = "plain"', 'name = "mine"'))
    done = run(url, tmp_path, "--format", "trl", "--judge-format", str(path), written=written)
    assert done.drawn == 0
    examples = [json.loads(line) for line in (tmp_path / "trajectories.trl.jsonl").read_text().splitlines()]
    assert examples
    assert all("Specific Criteria" not in example["completion"][0]["content"] for example in examples)


def test_a_format_file_that_cannot_be_read(url: str, first: Run, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_text('name = "bad"')
    done = run(url, tmp_path, "--format", "trl", "--judge-format", str(path), written=first.out.read_bytes()).done
    assert done.returncode == 2
    assert "--judge-format: format" in done.stderr
    alone = run(url, tmp_path, "--judge-format", str(path), written=first.out.read_bytes()).done
    assert alone.returncode == 2
    assert "--judge-format apply to fine-tuning data" in alone.stderr
