"""Forecasts of waiting and judging times."""

import random

import pytest

from grm_server.admission.forecast import TOKENS_PER_CHAR, Ewma, Forecast, Throughput
from grm_server.grm.stopping import Decided, Fixed
from tests.unit.admission.requests import score_request


class TestThroughput:
    def test_of_a_full_engine(self) -> None:
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
            # A few samples while no request waits.
            for number in range(20):
                rate.finished(start_s + 50 + number)
            assert rate.per_s(start_s + 900) == pytest.approx(10, rel=0.02)

    def test_a_hung_engine_is_slow(self) -> None:
        rate = Throughput(4)
        rate.busy(0.0)
        for number in range(1, 101):
            rate.finished(number / 10)
        before = rate.per_s(10.0)
        assert before is not None
        later = rate.per_s(70.0)
        assert later is not None
        assert later < before / 10

    def test_follows_a_change_within_a_few_engine_fulls(self) -> None:
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


class TestEwma:
    def test_is_a_plain_mean_at_first(self) -> None:
        ewma = Ewma()
        assert (ewma.mean, ewma.high, ewma.low) == (None, 0.0, 0.0)
        for value in (1.0, 2.0, 3.0):
            ewma.observe(value)
        assert ewma.mean == pytest.approx(2)
        assert ewma.low < 2 < ewma.high

    def test_high_is_rarely_exceeded(self) -> None:
        rng, ewma, exceeded = random.Random(1), Ewma(), 0
        for number in range(2000):
            value = rng.lognormvariate(1, 0.5)
            exceeded += number > 100 and value > ewma.high
            ewma.observe(value)
        assert exceeded < 200


class TestForecast:
    def test_has_no_estimates_at_first(self) -> None:
        forecast = Forecast(8)
        assert forecast.per_s(0.0) is None
        assert (forecast.drain_s(1000, 0.0), forecast.judging_s(score_request()), forecast.least_s) == (None, 0.0, 0.0)
        assert forecast.samples(score_request()) == 16
        assert forecast.tokens(1000) == round(1000 * TOKENS_PER_CHAR)

    def test_assumes_an_empty_engine_until_the_throughput_is_known(self) -> None:
        forecast = Forecast(8)
        forecast.written(1000, 500, 2.0)
        assert forecast.per_s(2.0) == pytest.approx(4.0)
        assert forecast.drain_s(40, 2.0) == pytest.approx(10.0)
        forecast.busy(2.0)
        for number in range(1, 9):
            forecast.finished(2.0 + number)
        assert forecast.per_s(10.0) == pytest.approx(1.0)

    def test_a_request_that_stops_early_counts_with_the_samples_it_will_use(self) -> None:
        forecast = Forecast(8)
        for _ in range(10):
            forecast.answered(Decided(0.05), 0.25, 1.0)
        assert forecast.samples(score_request(stop=Decided(0.01))) == pytest.approx(4)
        assert forecast.samples(score_request(stop=Fixed())) == 16

    def test_characters_per_token_are_learned(self) -> None:
        forecast = Forecast(8)
        assert forecast.tokens(1000) == round(1000 * TOKENS_PER_CHAR)
        forecast.written(1000, 800, 1.0)
        assert forecast.tokens(1000) == 800

    def test_the_usual_time_must_be_left_or_half_of_a_short_deadline(self) -> None:
        forecast = Forecast(8)
        forecast.written(1000, 500, 1.0)
        for _ in range(50):
            forecast.answered(Fixed(), 1.0, 10.0)
        assert forecast.judging_s(score_request(deadline_s=60)) == pytest.approx(10, rel=0.05)
        assert forecast.judging_s(score_request(deadline_s=8)) == pytest.approx(4)
        # Time for one sample at least.
        assert forecast.judging_s(score_request(deadline_s=0.5)) == pytest.approx(1)

    def test_late_service_is_expected_to_be_late(self) -> None:
        forecast = Forecast(8)
        forecast.written(1000, 500, 1.0)
        assert forecast.latest_wait_s(10.0) == 10.0
        for number in range(50):
            forecast.waited(10.0, 12.0 + number % 3)
        assert 13 < forecast.latest_wait_s(10.0) < 17
        assert 26 < forecast.latest_wait_s(21.0) < 34
        # Early service does not shorten the estimate.
        for _ in range(200):
            forecast.waited(10.0, 5.0)
        assert forecast.latest_wait_s(10.0) == 10.0

    def test_requests_cut_by_short_deadlines_do_not_make_judging_look_fast(self) -> None:
        forecast = Forecast(8)
        for _ in range(20):
            forecast.answered(Fixed(), 1.0, 10.0)
        for _ in range(100):
            forecast.cut(Fixed(), 0.1)
        assert forecast.judging_s(score_request(deadline_s=60)) > 9
        forecast.cut(Fixed(), 50.0)
        assert forecast.judging_s(score_request(deadline_s=60)) > 11
