"""Texts that the bundled model wrote, and what the parser must make of them. A new case is two files:

NAME.json            {"order": [...], "texts": {segment: text}}, as the engine returned it
NAME.expected.json   {"scores": [...]} or {"failure": reason}, with the principles and critique to return
"""

import json
from pathlib import Path

import pytest

from grm_server.app.formats import judge_format
from grm_server.grm.parse import parse
from grm_server.grm.script import Sample
from grm_server.grm.types import Draw, Trajectory

CASES = sorted(path for path in Path(__file__).parent.glob("*.json") if not path.name.endswith(".expected.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    case = json.loads(path.read_text("utf-8"))
    sample = Sample(case["texts"])
    n = len(case["order"])
    outcome = parse(judge_format().grammars(n), Draw(0, tuple(case["order"]), 0), sample, n)
    result = {"scores": list(outcome.scores)} if isinstance(outcome, Trajectory) else {"failure": outcome.reason.value}
    expected = json.loads(path.with_suffix(".expected.json").read_text("utf-8"))
    assert result | {"principles": sample.principles, "critique": sample.critique} == expected


def test_there_are_cases() -> None:
    assert len(CASES) >= 6
