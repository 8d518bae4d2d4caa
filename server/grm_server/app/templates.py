"""Load prompt templates: the package's own, or the user's."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from grm_server.grm.prompts import JudgeTemplate, PrinciplesTemplate


def judge_template(path: Path | None) -> JudgeTemplate:
    """The judge's prompt. Raises OSError, and ValueError for a template that omits a required part."""
    return JudgeTemplate(_source("judge.txt", path))


def meta_template(path: Path | None) -> JudgeTemplate:
    """The meta RM's prompt. Raises what `judge_template` raises."""
    return JudgeTemplate(_source("meta.txt", path), principles=False)


def principles_template(judge: JudgeTemplate) -> PrinciplesTemplate:
    """The prompt that asks the judge for principles before it sees any response.

    judge: the judge's template, which will show these principles.
    """
    return PrinciplesTemplate(_source("principles.txt", None), judge)


def _source(default: str, path: Path | None) -> str:
    return (files("grm_server.grm") / "templates" / default if path is None else path).read_text("utf-8")
