"""Quotas of API keys, with a clock that the test sets."""

import pytest

from grm_server.api.quota import Bucket, Caller
from grm_server.errors import LimitExceeded, RateLimited
from tests.unit.clock import Clock


def test_a_bucket_gives_a_minutes_amount_at_once_and_then_its_rate() -> None:
    bucket = Bucket(60, 0.0)
    for _ in range(60):
        assert bucket.wait_s(0.0) == 0
        bucket.take(1, 0.0)
    assert bucket.wait_s(0.0) == pytest.approx(1.0)
    assert bucket.wait_s(0.75) == pytest.approx(0.25)
    assert bucket.wait_s(1.0) == 0


def test_a_bucket_does_not_fill_beyond_a_minutes_amount() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(60, 3600.0)
    assert bucket.wait_s(3600.0) > 0


def test_an_overdrawn_bucket_refills_first() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(180, 0.0)
    assert bucket.wait_s(0.0) == pytest.approx(121.0)
    assert bucket.wait_s(120.0) == pytest.approx(1.0)


def test_a_refused_caller_gets_retry_after() -> None:
    clock = Clock()
    caller = Caller("a", clock, requests_per_minute=2, samples_per_minute=100)
    caller.take_request()
    caller.take_request()
    with pytest.raises(RateLimited, match="requests_per_minute") as refused:
        caller.take_request()
    assert refused.value.retry_after_s == 30
    clock.now_s += refused.value.retry_after_s
    caller.take_request()

    caller.check_samples()
    caller.take_samples(300)
    with pytest.raises(RateLimited, match="samples_per_minute") as refused:
        caller.check_samples()
    assert refused.value.retry_after_s == 121


def test_without_limits_nothing_is_refused() -> None:
    caller = Caller("a", Clock())
    for _ in range(1000):
        caller.take_request()
        caller.check_samples()
        caller.take_samples(10**9)


def test_the_debt_never_exceeds_a_minute() -> None:
    caller = Caller("a", Clock(), samples_per_minute=60)
    with pytest.raises(
        LimitExceeded, match="takes 40000 samples, over samples_per_minute of this API key = 60"
    ) as over:
        caller.check_size(40_000)
    assert over.value.details == {"samples": 40_000, "limit": 60}
    caller.take_samples(59)
    caller.check_size(60)
    caller.check_samples()
    caller.take_samples(60)
    with pytest.raises(RateLimited) as refused:
        caller.check_samples()
    assert refused.value.retry_after_s == 60


def test_samples_that_were_not_drawn_are_given_back_but_never_beyond_a_minutes_amount() -> None:
    caller = Caller("a", Clock(), samples_per_minute=60)
    caller.take_samples(60)
    caller.take_samples(-60)
    caller.take_samples(-60)
    caller.take_samples(60)
    with pytest.raises(RateLimited):
        caller.check_samples()
