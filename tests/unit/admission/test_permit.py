"""Time left and cost of a permit."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_server.admission.forecast import Forecast
from grm_server.admission.permit import AdmissionPermit, Cost, EngineLoad, cost_of
from grm_server.engine.fake import FakeEngine
from grm_server.grm.plan import make_plan
from grm_server.grm.stopping import Decided, Fixed, Precision, StopRule, Strict
from grm_server.grm.types import Message, Task
from grm_server.pipeline.types import ScoreRequest
from tests.unit.admission.requests import score_request


@pytest.mark.parametrize(("deadline_s", "left_s"), [(1.0, 0.98), (5.0, 4.9), (600.0, 599.9)])
def test_samples_are_cut_early_enough_to_answer_in_time(
    monkeypatch: pytest.MonkeyPatch, deadline_s: float, left_s: float
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    request = ScoreRequest(Task((Message("user", "Why?"),), ("A.", "B.")), 4, 0, 0.5, 96, deadline_s)
    load = EngineLoad(1, lambda: None)
    permit = AdmissionPermit(FakeEngine(), load, Forecast(1), request, Cost(4, 4, 2, 100), arrived_s=100.0)
    assert permit.left_s == pytest.approx(left_s)


def test_waiting_requests_are_served_when_there_is_room() -> None:
    served: list[int] = []
    load = EngineLoad(2, lambda: served.append(load.total))
    load.add(3)
    load.remove(2)
    assert served == []
    load.waiting = 1
    load.add(2)
    load.remove(1)
    assert (load.full, served) == (True, [])
    load.remove(1)
    assert (load.full, served) == (False, [1])


class TestCost:
    @given(
        st.integers(1, 20),
        st.integers(1, 40),
        st.sampled_from([Fixed(), Decided(0.05), Precision(0.4), Strict(0.05)]),
        st.integers(2, 20),
    )
    def test_agrees_with_the_plan(self, n: int, k: int, stop: StopRule, list_size: int) -> None:
        strict = isinstance(stop, Strict)
        list_size = max(n, list_size) if strict else list_size
        cost = cost_of(score_request(n, k, stop, list_size), 0)
        plan = make_plan(range(n), k, 5, min(n, list_size), exchangeable=strict)
        one_wave = isinstance(stop, Fixed) or (n == 1 and not isinstance(stop, Precision))
        assert cost.samples == len(plan.draws)
        assert cost.first == len(plan.draws if one_wave else plan.wave(0, k))
        distinct = len({draw.order for draw in plan.draws})
        assert distinct <= cost.prompts
        if not strict and plan.samples_per_round == 1:
            assert distinct == cost.prompts

    def test_counts_the_characters_of_every_distinct_prompt(self) -> None:
        assert cost_of(score_request(n=2, k=16), 1000).chars == 2 * (1000 + 100 + 2 * 50)
        # Blocks: all responses once in each of 4 rounds, and the shared text in each of 2 blocks.
        assert cost_of(score_request(n=8, k=4, list_size=4), 1000).chars == 4 * (2 * 1100 + 8 * 50)
