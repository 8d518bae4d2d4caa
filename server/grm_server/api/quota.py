"""Quotas of API keys: token buckets for requests and samples, and a limit on k.

A POST is charged when it arrives, for the most samples that it may draw, and gets back those of judgements that turn
out to be shared. Of single responses, the one that opens a group (or a new block of it) pays for all that join.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from grm_server.errors import LimitExceeded, RateLimited


class Bucket:
    """Token bucket: fills at a constant rate and holds one minute's amount.

    A bucket that holds at least one token may be overdrawn; later requests wait until the debt is refilled.
    """

    def __init__(self, per_minute: int, now_s: float) -> None:
        self._capacity = float(per_minute)
        self._per_s = per_minute / 60
        self._level = self._capacity
        self._updated_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Seconds until the bucket holds one token; 0 if it does."""
        return max(0.0, (1 - self._level_at(now_s)) / self._per_s)

    def take(self, amount: int, now_s: float) -> None:
        """Negative amounts give tokens back."""
        self._level = self._level_at(now_s) - amount
        self._updated_s = now_s

    def _level_at(self, now_s: float) -> float:
        return min(self._capacity, self._level + (now_s - self._updated_s) * self._per_s)


class Caller:
    """The holder of one API key, with its quotas."""

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
        self.samples_per_minute = samples_per_minute

    def take_request(self) -> None:
        """Raises RateLimited."""
        if self._requests is not None:
            self._check(self._requests, "requests_per_minute")
            self._requests.take(1, self._clock())

    def check_size(self, samples: int) -> None:
        """Raises LimitExceeded for more than a minute's amount, so the debt and `Retry-After` never exceed a minute."""
        limit = self.samples_per_minute
        if limit is not None and samples > limit:
            raise LimitExceeded(
                f"the request takes {samples} samples, over samples_per_minute of this API key = {limit}; send fewer "
                "items at a time, or a smaller k",
                details={"samples": samples, "limit": limit},
            )

    def check_samples(self) -> None:
        """Raises RateLimited if no samples are left."""
        if self._samples is not None:
            self._check(self._samples, "samples_per_minute")

    def take_samples(self, count: int) -> None:
        """Charge samples, even beyond what is left. A negative count gives them back."""
        if self._samples is not None:
            self._samples.take(count, self._clock())

    def _check(self, bucket: Bucket, limit: str) -> None:
        wait_s = bucket.wait_s(self._clock())
        if wait_s > 0:
            raise RateLimited(f"this API key has used up its {limit}", retry_after_s=math.ceil(wait_s))


ANONYMOUS = Caller("anonymous", time.monotonic)
"""Every caller of a server without keys."""
