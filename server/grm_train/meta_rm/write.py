"""Write a trained meta RM to a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from grm_server.meta_rm.card import FILE, MetaCard, save_card
from grm_train.meta_rm.model_card import model_card
from grm_train.meta_rm.train import HEAD_FOLDER, TrainedMetaRM


def check_ours(out: Path) -> None:
    """A wrong path must not cost the user data. Raises FileExistsError."""
    if out.exists() and not (out / FILE).exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not a meta RM; choose another folder")


def write(trained: TrainedMetaRM, card: MetaCard, out: Path) -> None:
    """Write to a temporary folder and rename it, so readers never see half of a meta RM."""
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    trained.save(partial)
    save_card(card, partial)
    if (partial / HEAD_FOLDER).exists():
        save_card(card, partial / HEAD_FOLDER)
    (partial / "README.md").write_text(model_card(card), "utf-8")
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
