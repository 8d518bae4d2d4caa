"""The bundled meta RM: assembled once from its head, and subject to its card's gate."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grm_server.app import create_app
from grm_server.engine import bundled
from grm_server.meta_rm import bundled as bundled_meta
from grm_server.meta_rm.card import FILE, MetaCard, load_card, save_card
from grm_server.meta_rm.checkpoint import load_head, save_head
from grm_server.settings import SettingsError, load_settings

CHOSEN = ["meta_rm.kind=vllm", "meta_rm.model=bundled"]


def card(auc: float = 0.6) -> MetaCard:
    about = {"data": "d", "base": "b", "judge": "j", "method": "head", "template_sha256": "0", "version": "0.1.0"}
    numbers = {"platt": (1, 0), "ece": 0.1, "prompts": 9, "trajectories": 9, "layers": 8, "seed": 0, "held_out": 0.2}
    measured = {"auc": auc, "auc_interval": (0.5, 0.7), "informative": 9, "baselines": {"length": 0.5, "scores": 0.5}}
    return MetaCard.model_validate(about | numbers | measured)


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The head of an installation."""
    folder = tmp_path / "head"
    folder.mkdir()
    save_card(card(), folder)
    save_head(np.arange(4.0), folder)
    monkeypatch.setattr(bundled_meta, "HEAD", folder)
    return folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands of a fake assembly."""
    made: list[list[str]] = []

    def assemble(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        made.append(command)
        (Path(command[-1]) / "model.safetensors").write_bytes(b"weights")
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", assemble)
    monkeypatch.setattr(bundled, "bundled_model", lambda cache_dir: cache_dir / bundled.NAME)
    return made


def test_assembled_once(head: Path, runs: list[list[str]], tmp_path: Path) -> None:
    place = bundled_meta.bundled_meta_rm(tmp_path / "cache")
    assert bundled_meta.bundled_meta_rm(tmp_path / "cache") == place
    assert (place / "model.safetensors").read_bytes() == b"weights"
    [command] = runs
    assert command[1:5] == [
        "-m",
        "grm_server.meta_rm.checkpoint",
        str(tmp_path / "cache" / bundled.NAME),
        str(head),
    ]


def test_another_head_is_assembled_again(head: Path, runs: list[list[str]], tmp_path: Path) -> None:
    bundled_meta.bundled_meta_rm(tmp_path)
    save_head(np.arange(4.0) + 1, head)
    bundled_meta.bundled_meta_rm(tmp_path)
    assert len(runs) == 2


def test_an_installation_without_a_bundled_meta_rm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled_meta, "HEAD", tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="no bundled meta RM"):
        bundled_meta.bundled_meta_rm(tmp_path)
    with pytest.raises(SettingsError, match=r"meta_rm\.model: .*no bundled meta RM"):
        create_app(load_settings({}, CHOSEN))


def test_a_weak_meta_rm_is_refused_as_the_default(head: Path) -> None:
    create_app(load_settings({}, [*CHOSEN, "judge.aggregate=meta_hinge"]))
    save_card(card(auc=0.53), head)
    create_app(load_settings({}, CHOSEN))
    with pytest.raises(SettingsError, match=r"0\.530 is below"):
        create_app(load_settings({}, [*CHOSEN, "judge.aggregate=meta_hinge"]))


def test_a_remote_model_called_bundled_is_not_the_bundled_meta_rm(head: Path) -> None:
    (head / FILE).write_text("{}")
    create_app(load_settings({}, ["meta_rm.kind=remote", "meta_rm.model=bundled", "meta_rm.url=http://x/classify"]))


def test_head_and_card_survive_a_round_trip(tmp_path: Path) -> None:
    weight = np.linspace(-1, 1, 7)
    save_head(weight, tmp_path)
    np.testing.assert_allclose(load_head(tmp_path), weight, rtol=1e-6)
    save_card(card(), tmp_path)
    assert load_card(tmp_path) == card()
