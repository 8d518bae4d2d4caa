"""What a caller may use up: token buckets, without a clock of their own."""

from __future__ import annotations

import math
from collections.abc import Callable

from grm_server.errors import RateLimited


class Bucket:
    """Fills at a constant rate and holds a minute's worth. One that holds anything may be overdrawn, so that a request
    for more than a minute's worth is served too, and paid for by waiting afterwards."""

    def __init__(self, per_minute: int, now_s: float) -> None:
        self._most = float(per_minute)
        self._per_s = per_minute / 60
        self._level = self._most
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until it holds one; 0 if it does."""
        return max(0.0, (1 - self._filled(now_s)) / self._per_s)

    def take(self, amount: int, now_s: float) -> None:
        self._level = self._filled(now_s) - amount
        self._at_s = now_s

    def _filled(self, now_s: float) -> float:
        return min(self._most, self._level + (now_s - self._at_s) * self._per_s)


class Caller:
    """Whoever holds one API key, or nobody in particular."""

    def __init__(
        self,
        name: str,
        clock: Callable[[], float],
        *,
        requests_per_minute: int | None = None,
        samples_per_minute: int | None = None,
        max_k: int | None = None,
    ) -> None:
        self.name = name
        self.max_k = max_k
        self._clock = clock
        self._requests = None if requests_per_minute is None else Bucket(requests_per_minute, clock())
        self._samples = None if samples_per_minute is None else Bucket(samples_per_minute, clock())

    def take_request(self) -> None:
        """Raises RateLimited."""
        if self._requests is not None:
            self._check(self._requests, "requests_per_minute")
            self._requests.take(1, self._clock())

    def check_samples(self) -> None:
        """Raises RateLimited where there is nothing left to draw samples with."""
        if self._samples is not None:
            self._check(self._samples, "samples_per_minute")

    def take_samples(self, count: int) -> None:
        """Pay for samples, also with what is not there yet."""
        if self._samples is not None:
            self._samples.take(count, self._clock())

    def _check(self, bucket: Bucket, limit: str) -> None:
        wait_s = bucket.wait_s(self._clock())
        if wait_s > 0:
            raise RateLimited(f"this API key has used up its {limit}", retry_after_s=math.ceil(wait_s))
