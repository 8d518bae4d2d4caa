"""What the bundled model really wrote, and what must be read from it. A new case is two more files:

NAME.json            {"order": [...], "texts": {segment: text}}, as the engine returned it
NAME.expected.json   {"scores": [...]} or {"failure": reason}, with the principles and critique to be returned
"""

import json
from pathlib import Path

import pytest

from grm_server.grm.parse import parse
from grm_server.grm.types import Draw, Sample, Trajectory

CASES = sorted(path for path in Path(__file__).parent.glob("*.json") if not path.name.endswith(".expected.json"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    written = json.loads(path.read_text("utf-8"))
    sample = Sample(written["texts"])
    outcome = parse(Draw(0, tuple(written["order"]), 0), sample, len(written["order"]))
    read = {"scores": list(outcome.scores)} if isinstance(outcome, Trajectory) else {"failure": outcome.reason.value}
    expected = json.loads(path.with_suffix(".expected.json").read_text("utf-8"))
    assert read | {"principles": sample.principles, "critique": sample.critique} == expected


def test_there_are_cases() -> None:
    assert len(CASES) >= 6
