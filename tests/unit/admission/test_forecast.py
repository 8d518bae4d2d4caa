"""What requests will take."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_server.admission.cost import Cost, cost_of
from grm_server.admission.ewma import Ewma
from grm_server.admission.forecast import TOKENS_PER_CHAR, Forecast
from grm_server.admission.throughput import Throughput
from grm_server.grm.plan import make_plan
from grm_server.grm.types import Decided, Fixed, Message, Precision, StopRule, Strict, Task
from grm_server.pipeline.types import ScoreRequest

COST = Cost(samples=16, first=16, prompts=2, chars=2000)


FIXED = Fixed()


def asked(n: int = 2, k: int = 16, stop: StopRule = FIXED, list_size: int = 8, deadline_s: float = 60) -> ScoreRequest:
    task = Task((Message("user", "q" * 100),), ("a" * 50,) * n)
    return ScoreRequest(task, k, 5, 0.5, 192, deadline_s, stop=stop, list_size=list_size)


class TestCost:
    @given(
        st.integers(1, 20),
        st.integers(1, 40),
        st.sampled_from([Fixed(), Decided(0.05), Precision(0.4), Strict(0.05)]),
        st.integers(2, 20),
    )
    def test_is_what_the_plan_turns_out_to_be(self, n: int, k: int, stop: StopRule, list_size: int) -> None:
        strict = isinstance(stop, Strict)
        list_size = max(n, list_size) if strict else list_size
        cost = cost_of(asked(n, k, stop, list_size), 0)
        planned = make_plan(range(n), k, 5, min(n, list_size), exchangeable=strict)
        concurrency = isinstance(stop, Fixed) or (n == 1 and not isinstance(stop, Precision))
        assert cost.samples == len(planned.draws)
        assert cost.first == len(planned.draws if concurrency else planned.wave(0, k))
        distinct = len({draw.order for draw in planned.draws})
        assert distinct <= cost.prompts
        if not strict and planned.samples_per_round == 1:
            assert distinct == cost.prompts

    def test_counts_the_letters_of_every_distinct_prompt(self) -> None:
        assert cost_of(asked(n=2, k=16), 1000).chars == 2 * (1000 + 100 + 2 * 50)
        # Blocks: all responses once in each of 4 rounds, and the rest in each of 2 blocks.
        assert cost_of(asked(n=8, k=4, list_size=4), 1000).chars == 4 * (2 * 1100 + 8 * 50)


class TestDrainRate:
    def test_is_what_a_full_engine_does(self) -> None:
        """128 slots, samples of about 2 s: 64 a second."""
        rng, rate = random.Random(1), Throughput(128)
        rate.busy(0.0)
        ends = sorted(rng.uniform(1, 3) for _ in range(128))
        seen: list[tuple[float, float | None]] = []
        for _ in range(3000):
            now_s = ends.pop(0)
            rate.finished(now_s)
            seen.append((now_s, rate.per_s(now_s)))
            ends = sorted([*ends, now_s + rng.uniform(1, 3)])
        assert seen[100][1] is None
        later = [per_s for now_s, per_s in seen if now_s > 4]
        assert all(per_s is not None and 45 < per_s < 75 for per_s in later)
        assert later[-1] == pytest.approx(64, rel=0.1)

    def test_an_idle_engine_is_not_slow(self) -> None:
        rate = Throughput(4)
        for start_s in (0.0, 1000.0):
            rate.busy(start_s)
            for number in range(1, 101):
                rate.finished(start_s + number / 10)
            rate.idle(start_s + 10.0)
            # What little there is to do between.
            for number in range(20):
                rate.finished(start_s + 50 + number)
            assert rate.per_s(start_s + 900) == pytest.approx(10, rel=0.02)

    def test_a_hung_engine_is(self) -> None:
        rate = Throughput(4)
        rate.busy(0.0)
        for number in range(1, 101):
            rate.finished(number / 10)
        before = rate.per_s(10.0)
        assert before is not None
        later = rate.per_s(70.0)
        assert later is not None
        assert later < before / 10

    def test_follows_a_change_within_a_few_turns(self) -> None:
        rate = Throughput(10)
        rate.busy(0.0)
        now_s = 0.0
        for _ in range(1000):
            now_s += 0.01
            rate.finished(now_s)
        for _ in range(200):
            now_s += 0.1
            rate.finished(now_s)
        assert rate.per_s(now_s) == pytest.approx(10, rel=0.25)


class TestUsual:
    def test_is_a_plain_mean_at_first(self) -> None:
        usual = Ewma()
        assert (usual.mean, usual.high, usual.low) == (None, 0.0, 0.0)
        for value in (1.0, 2.0, 3.0):
            usual.observe(value)
        assert usual.mean == pytest.approx(2)
        assert usual.low < 2 < usual.high

    def test_high_is_seldom_exceeded(self) -> None:
        rng, usual, exceeded = random.Random(1), Ewma(), 0
        for number in range(2000):
            value = rng.lognormvariate(1, 0.5)
            exceeded += number > 100 and value > usual.high
            usual.observe(value)
        assert exceeded < 200


class TestForecast:
    def test_knows_nothing_at_first(self) -> None:
        forecast = Forecast(8)
        assert forecast.per_s(0.0) is None
        assert (forecast.drain_s(1000, 0.0), forecast.judging_s(asked()), forecast.least_s) == (None, 0.0, 0.0)
        assert forecast.samples(asked(), COST) == 16
        assert forecast.tokens(1000) == round(1000 * TOKENS_PER_CHAR)

    def test_assumes_the_best_before_a_full_turn_was_seen(self) -> None:
        forecast = Forecast(8)
        forecast.written(COST, 500, 2.0)
        assert forecast.per_s(2.0) == pytest.approx(4.0)
        assert forecast.drain_s(40, 2.0) == pytest.approx(10.0)
        forecast.busy(2.0)
        for number in range(1, 9):
            forecast.finished(2.0 + number)
        assert forecast.per_s(10.0) == pytest.approx(1.0)

    def test_a_request_that_stops_early_counts_for_what_it_will_use(self) -> None:
        forecast = Forecast(8)
        for _ in range(10):
            forecast.answered(Decided(0.05), 0.25, 1.0)
        assert forecast.samples(asked(stop=Decided(0.01)), COST) == pytest.approx(4)
        assert forecast.samples(asked(stop=Fixed()), COST) == 16

    def test_letters_become_tokens_as_they_did(self) -> None:
        forecast = Forecast(8)
        assert forecast.tokens(1000) == round(1000 * TOKENS_PER_CHAR)
        # Two prompts of 1000 letters each.
        forecast.written(COST, 800, 1.0)
        assert forecast.tokens(1000) == 800

    def test_the_usual_time_must_be_left_or_half_of_a_short_deadline(self) -> None:
        forecast = Forecast(8)
        forecast.written(COST, 500, 1.0)
        for _ in range(50):
            forecast.answered(Fixed(), 1.0, 10.0)
        assert forecast.judging_s(asked(deadline_s=60)) == pytest.approx(10, rel=0.05)
        assert forecast.judging_s(asked(deadline_s=8)) == pytest.approx(4)
        # And time for one sample in any case.
        assert forecast.judging_s(asked(deadline_s=0.5)) == pytest.approx(1)

    def test_turns_that_come_late_are_expected_late(self) -> None:
        forecast = Forecast(8)
        forecast.written(COST, 500, 1.0)
        assert forecast.turn_s(10.0) == 10.0
        for number in range(50):
            forecast.turned(10.0, 12.0 + number % 3)
        assert 13 < forecast.turn_s(10.0) < 17
        assert 26 < forecast.turn_s(21.0) < 34
        # Those that come early are no reason to promise more.
        for _ in range(200):
            forecast.turned(10.0, 5.0)
        assert forecast.turn_s(10.0) == 10.0

    def test_short_deadlines_do_not_teach_that_judging_is_fast(self) -> None:
        forecast = Forecast(8)
        for _ in range(20):
            forecast.answered(Fixed(), 1.0, 10.0)
        for _ in range(100):
            forecast.cut(Fixed(), 0.1)
        assert forecast.judging_s(asked(deadline_s=60)) > 9
        forecast.cut(Fixed(), 50.0)
        assert forecast.judging_s(asked(deadline_s=60)) > 11
