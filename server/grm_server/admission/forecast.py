"""What requests will take, by what they took. Pure: the caller brings the clock."""

from __future__ import annotations

from collections import defaultdict

from grm_server.admission.cost import Cost
from grm_server.admission.ewma import Ewma
from grm_server.admission.throughput import Throughput
from grm_server.grm.types import StopRule
from grm_server.pipeline.types import ScoreRequest

TOKENS_PER_CHAR = 0.3
"""Of prompts, before any was tokenised. English has a token for every three or four letters, other languages more."""


class _Usage:
    """What requests with one stop rule turn out to take."""

    def __init__(self) -> None:
        self.share = Ewma()
        """Of the samples that they ask for."""
        self.seconds = Ewma()
        """From permit to answer."""


class Forecast:
    """See the module."""

    def __init__(self, capacity: int) -> None:
        """capacity: samples that the engine has while requests wait."""
        self._capacity = capacity
        self._rate = Throughput(capacity)
        self._sample_s = Ewma()
        self._late = Ewma()
        """By how much turns come later than was thought, of the time that was thought."""
        self._tokens_per_char = Ewma()
        self._usage: defaultdict[type[StopRule], _Usage] = defaultdict(_Usage)

    def busy(self, now_s: float) -> None:
        """From now on requests wait."""
        self._rate.busy(now_s)

    def idle(self, now_s: float) -> None:
        """From now on none waits."""
        self._rate.idle(now_s)

    def finished(self, now_s: float) -> None:
        """The engine is done with a sample."""
        self._rate.finished(now_s)

    def written(self, cost: Cost, prompt_tokens: int, seconds: float) -> None:
        """It has written a sample of a request with this cost, in so many seconds."""
        self._sample_s.observe(seconds)
        self._tokens_per_char.observe(prompt_tokens * cost.prompts / cost.chars)

    def answered(self, rule: StopRule, share: float, seconds: float) -> None:
        """A request with this rule had its answer so many seconds after its permit, by a share of its samples."""
        usage = self._usage[type(rule)]
        usage.share.observe(share)
        usage.seconds.observe(seconds)

    def cut(self, rule: StopRule, seconds: float) -> None:
        """A deadline cut it after so many seconds: it would have taken longer, nobody knows how much."""
        usual = self._usage[type(rule)].seconds
        if seconds > (usual.mean or 0.0):
            usual.observe(seconds)

    def turned(self, thought_s: float, waited_s: float) -> None:
        """A request had its turn, or gave up, after waiting so long, where `drain_s` had said that."""
        self._late.observe((waited_s - thought_s) / (thought_s + self._grain_s))

    def turn_s(self, thought_s: float) -> float:
        """Seconds after which a request has its turn at the latest, where `drain_s` says that.

        Under steady overload the queue is always as long as deadlines let it be: if one went by what is likeliest, half
        of all requests would come too late.
        """
        return thought_s + max(0.0, self._late.high) * (thought_s + self._grain_s) if thought_s else 0.0

    @property
    def _grain_s(self) -> float:
        """Samples end in bursts, and no turn can be told more exactly."""
        return (self._sample_s.mean or 0.0) + 0.001

    def samples(self, request: ScoreRequest, cost: Cost) -> float:
        """Those that a request will use."""
        share = self._usage[type(request.stop)].share.mean
        return cost.samples * (1.0 if share is None else share)

    def tokens(self, chars: int) -> int:
        """Of prompts."""
        return round(chars * (self._tokens_per_char.mean or TOKENS_PER_CHAR))

    def judging_s(self, request: ScoreRequest) -> float:
        """Seconds that must be left when its turn comes. A request that allows less than is usual wants what votes
        there are by then, and gets half of its time for them."""
        usual_s = self._usage[type(request.stop)].seconds.high
        return max(self._sample_s.mean or 0.0, min(usual_s, request.deadline_s / 2))

    @property
    def least_s(self) -> float:
        """With less time left than this hardly any sample is finished."""
        return self._sample_s.low

    def per_s(self, now_s: float) -> float | None:
        """Samples per second that the engine finishes while requests wait."""
        rate = self._rate.per_s(now_s)
        if rate is None and self._sample_s.mean:
            # Little's law, with samples that had the engine more to themselves: it will hardly be faster than this.
            return self._capacity / self._sample_s.mean
        return rate

    def drain_s(self, samples: float, now_s: float) -> float | None:
        """Seconds in which so many are finished; None while that is unknown."""
        rate = self.per_s(now_s)
        return max(0.0, samples) / rate if rate else None
