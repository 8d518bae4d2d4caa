"""Prompt templates: those that the package ships, or the user's own."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from grm_server.grm.prompts import JudgeTemplate, PrinciplesTemplate


def judge_template(path: Path | None) -> JudgeTemplate:
    """What the judge is asked. Raises OSError, and ValueError for one that does not show what it must."""
    return JudgeTemplate(_source("judge.txt", path))


def meta_template(path: Path | None) -> JudgeTemplate:
    """What the meta RM is asked. Raises as `judge_template` does."""
    return JudgeTemplate(_source("meta.txt", path), principles=False)


def principles_template(judge: JudgeTemplate) -> PrinciplesTemplate:
    """What the judge is asked for before it sees a response. judge: the template that shows the principles later."""
    return PrinciplesTemplate(_source("principles.txt", None), judge)


def _source(shipped: str, path: Path | None) -> str:
    return (files("grm_server.grm") / "templates" / shipped if path is None else path).read_text("utf-8")
