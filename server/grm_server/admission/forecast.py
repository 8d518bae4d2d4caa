"""Forecasts of waiting and judging times, learned from finished requests. Pure: the caller passes the time."""

from __future__ import annotations

from collections import defaultdict

from grm_server.grm.stopping import StopRule
from grm_server.pipeline.types import ScoreRequest
from grm_server.pipeline.vote import VoteRequest

TOKENS_PER_CHAR = 0.3
"""Of prompts, until one was tokenised. English has a token for every 3 to 4 characters, other languages have more."""
MEMORY_WAVES = 8
"""Memory of `Throughput`, in engine-fulls of samples: those of 5.5 engine-fulls ago have half the weight."""


class Ewma:
    """EWMA of a value and its mean deviation, as in TCP's RTO estimator (Jacobson 1988)."""

    def __init__(self, weight: float = 0.05) -> None:
        """weight: of the newest value. The first 1 / weight values have a plain mean instead."""
        self._weight = weight
        self._count = 0
        self.mean: float | None = None
        """None before the first value."""
        self._deviation = 0.0

    def observe(self, value: float) -> None:
        self._count += 1
        weight = max(self._weight, 1 / self._count)
        if self.mean is None:
            self.mean = value
        error = value - self.mean
        self.mean += weight * error
        self._deviation += weight * (abs(error) - self._deviation)

    @property
    def high(self) -> float:
        """Mean + 2 deviations, rarely exceeded; 0 before the first value."""
        return 0.0 if self.mean is None else self.mean + 2 * self._deviation

    @property
    def low(self) -> float:
        """Mean - 2 deviations, at least 0."""
        return 0.0 if self.mean is None else max(0.0, self.mean - 2 * self._deviation)


class Throughput:
    """Samples per second of an engine under back-pressure, that is, counted only while requests wait.

    An engine with little to do finishes little, which says nothing about what it can do.

    Old samples fade with each finished sample and not with time, so the memory spans the same number of engine-fulls
    whether a sample takes a minute or a second.
    """

    def __init__(self, capacity: int) -> None:
        """capacity: samples in a full engine. The first of them end together, so there is no rate before that many."""
        self._capacity = capacity
        self._decay = 1 - 1 / (MEMORY_WAVES * capacity)
        self._finished = self._busy_s = 0.0
        self._seen = 0
        self._since_s: float | None = None
        """Busy time is counted up to here; None while no request waits."""

    def busy(self, now_s: float) -> None:
        """From now on requests wait."""
        if self._since_s is None:
            self._since_s = now_s

    def idle(self, now_s: float) -> None:
        """From now on no request waits."""
        self._count(now_s)
        self._since_s = None

    def finished(self, now_s: float) -> None:
        if self._since_s is None:
            return
        self._finished, self._busy_s = self._finished * self._decay + 1, self._busy_s * self._decay
        self._seen += 1
        self._count(now_s)

    def per_s(self, now_s: float) -> float | None:
        """Samples per second; None while unknown. It falls while an engine hangs."""
        self._count(now_s)
        return self._finished / self._busy_s if self._seen >= self._capacity and self._busy_s else None

    def _count(self, now_s: float) -> None:
        if self._since_s is not None:
            self._busy_s += now_s - self._since_s
            self._since_s = now_s


class _Usage:
    """What requests with one stop rule used."""

    def __init__(self) -> None:
        self.share = Ewma()
        """Of the samples that the request allows."""
        self.seconds = Ewma()
        """From permit to answer."""


class Forecast:
    """Of one engine."""

    def __init__(self, capacity: int) -> None:
        """capacity: samples in the engine while requests wait."""
        self._capacity = capacity
        self._throughput = Throughput(capacity)
        self._sample_s = Ewma()
        self._delay = Ewma()
        """Excess of actual over expected waiting time, as a share of the expected time."""
        self._tokens_per_char = Ewma()
        self._usage: defaultdict[type[StopRule], _Usage] = defaultdict(_Usage)

    def busy(self, now_s: float) -> None:
        """From now on requests wait."""
        self._throughput.busy(now_s)

    def idle(self, now_s: float) -> None:
        """From now on no request waits."""
        self._throughput.idle(now_s)

    def finished(self, now_s: float) -> None:
        """The engine finished a sample or failed it."""
        self._throughput.finished(now_s)

    def written(self, prompt_chars: float, prompt_tokens: int, seconds: float) -> None:
        """The engine wrote a sample. prompt_chars: mean over the prompts of its request."""
        self._sample_s.observe(seconds)
        self._tokens_per_char.observe(prompt_tokens / prompt_chars)

    def answered(self, rule: StopRule, share: float, seconds: float) -> None:
        """A request was answered `seconds` after its permit, with this share of its samples."""
        usage = self._usage[type(rule)]
        usage.share.observe(share)
        usage.seconds.observe(seconds)

    def cut(self, rule: StopRule, seconds: float) -> None:
        """A deadline cut a request after `seconds`. It would have taken longer, so this is only a lower bound."""
        judging = self._usage[type(rule)].seconds
        if seconds > (judging.mean or 0.0):
            judging.observe(seconds)

    def waited(self, expected_s: float, waited_s: float) -> None:
        """A request left the queue. expected_s: what `drain_s` returned when it was queued."""
        self._delay.observe((waited_s - expected_s) / (expected_s + self._grain_s))

    def latest_wait_s(self, expected_s: float) -> float:
        """Seconds after which a request is served at the latest, where `drain_s` returned `expected_s`.

        Under steady overload the queue is as long as deadlines allow. With the likeliest time alone, half of all
        requests would be too late.
        """
        return expected_s + max(0.0, self._delay.high) * (expected_s + self._grain_s) if expected_s else 0.0

    @property
    def _grain_s(self) -> float:
        """Precision of any waiting time: samples end in bursts."""
        return (self._sample_s.mean or 0.0) + 0.001

    def samples(self, request: ScoreRequest | VoteRequest) -> float:
        """Samples that a request is expected to use."""
        share = self._usage[type(request.stop)].share.mean
        return request.samples * (1.0 if share is None else share)

    def tokens(self, chars: int) -> int:
        """Of prompts."""
        return round(chars * (self._tokens_per_char.mean or TOKENS_PER_CHAR))

    def judging_s(self, request: ScoreRequest | VoteRequest) -> float:
        """Seconds that must be left when a request is served. One with a shorter deadline than judging takes wants a
        partial vote; half of its deadline is kept for that."""
        usual_s = self._usage[type(request.stop)].seconds.high
        return max(self._sample_s.mean or 0.0, min(usual_s, request.deadline_s / 2))

    @property
    def least_s(self) -> float:
        """With less time left, hardly any sample finishes."""
        return self._sample_s.low

    def per_s(self, now_s: float) -> float | None:
        """Samples per second that the engine finishes while requests wait."""
        rate = self._throughput.per_s(now_s)
        if rate is None and self._sample_s.mean:
            # Little's law, with samples of a less busy engine: an upper bound in practice.
            return self._capacity / self._sample_s.mean
        return rate

    def drain_s(self, samples: float, now_s: float) -> float | None:
        """Seconds in which so many samples finish; None while unknown."""
        rate = self.per_s(now_s)
        return max(0.0, samples) / rate if rate else None
