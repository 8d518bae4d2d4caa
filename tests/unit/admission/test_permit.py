"""What is left of a deadline."""

import time
from typing import cast

import pytest

from grm_server.admission.controller import Admission
from grm_server.admission.cost import Cost
from grm_server.admission.permit import AdmissionPermit
from grm_server.engine.fake import FakeEngine
from grm_server.grm.types import Message, Task
from grm_server.pipeline.types import ScoreRequest


@pytest.mark.parametrize(("deadline_s", "left_s"), [(1.0, 0.98), (5.0, 4.9), (600.0, 599.9)])
def test_samples_are_cut_early_enough_to_answer_in_time(
    monkeypatch: pytest.MonkeyPatch, deadline_s: float, left_s: float
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    request = ScoreRequest(Task((Message("user", "Why?"),), ("A.", "B.")), 4, 0, 0.5, 96, deadline_s)
    held = AdmissionPermit(cast("Admission", None), FakeEngine(), request, Cost(4, 4, 2, 100), arrived_s=100.0)
    assert held.left_s == pytest.approx(left_s)
