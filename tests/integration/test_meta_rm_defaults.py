"""Which meta RMs a server accepts as its default."""

import json
from pathlib import Path
from typing import Any

import pytest

from grm_server.app import create_app
from grm_server.settings import SettingsError, load_settings


def test_incomplete_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="--meta-rm"):
        create_app(load_settings({}, ["judge.aggregate=meta_hinge"]))
    with pytest.raises(SettingsError, match=r"meta_rm\.url"):
        create_app(load_settings({}, ["meta_rm.kind=remote", "meta_rm.model=org/name"]))


def card(**changes: Any) -> dict[str, Any]:
    """The content of a meta RM's `meta_rm.json`."""
    measured = {
        "auc": 0.6,
        "auc_interval": [0.55, 0.65],
        "informative": 80,
        "baselines": {"length": 0.5, "scores": 0.5},
    }
    about = {"data": "d", "base": "b", "judge": "j", "method": "head", "template_sha256": "0", "version": "0.1.0"}
    numbers = {
        "platt": [1, 0],
        "ece": 0.1,
        "prompts": 100,
        "trajectories": 400,
        "layers": 8,
        "seed": 0,
        "held_out": 0.2,
    }
    return measured | about | numbers | changes


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"auc": 0.53}, "AUC 0.530 is below 0.55"),
        ({"baselines": {"length": 0.61, "scores": 0.5}}, "no better than that of lengths alone, 0.610"),
    ],
)
def test_a_weak_meta_rm_is_no_default_unless_allowed(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    (tmp_path / "meta_rm.json").write_text(json.dumps(card(**changes)))
    chosen = ["meta_rm.kind=vllm", f"meta_rm.model={tmp_path}"]
    default = [*chosen, "judge.aggregate=meta_hinge"]
    with pytest.raises(SettingsError, match=reason):
        create_app(load_settings({}, default))
    create_app(load_settings({}, [*default, "meta_rm.allow_weak=true"]))
    # Requests can still select it.
    create_app(load_settings({}, chosen))
    (tmp_path / "meta_rm.json").write_text(json.dumps(card()))
    create_app(load_settings({}, default))
    (tmp_path / "meta_rm.json").write_text("{}")
    with pytest.raises(SettingsError, match="meta_rm.json is not a card"):
        create_app(load_settings({}, chosen))
