"""What goes into the pipeline and what comes out of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from grm_server.engine.protocol import Rating
from grm_server.grm.types import (
    Aggregate,
    Decision,
    Failure,
    FailureReason,
    Fixed,
    Floats,
    Reading,
    Sample,
    StopReason,
    StopRule,
    Task,
    Trajectory,
    Verdict,
)

Priority = Literal["high", "normal", "low"]


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """One task and how to judge it, every choice made."""

    task: Task
    k: int
    """Readings of each response at most."""
    seed: int
    temperature: float
    max_critique_tokens: int
    deadline_s: float
    """Seconds from arrival."""
    min_votes: int = 1
    stop: StopRule = Fixed()
    aggregate: Aggregate = "mean"
    k_meta: int = 0
    """`meta_top`: samples of k that vote."""
    fallback_to_plain_vote: bool = False
    """Vote without the meta RM if it fails, instead of failing too."""
    reading: Reading = "sampled"
    list_size: int = 8
    """Responses that one sample shows at most."""
    speculate_below: int = 0
    """While the engine has fewer samples than this, the next wave begins early."""
    principles_from: Literal["sample", "query"] = "sample"
    """Without principles in the task: each sample writes its own, or they are drawn once for the query."""
    seed_is_free: bool = False
    """The caller left the seed to the server: any other would do as well."""
    tenant: str = "anonymous"
    """Who asks: the name of an API key. What one asks is no other's to share."""
    priority: Priority = "normal"
    """Its place among what its tenant asks."""
    wait_until_deadline: bool = False
    """It waits for its turn until its deadline, also where that will come too late."""

    @property
    def samples(self) -> int:
        """At most: k times the blocks that the responses make, if these fit the model's context."""
        return self.k * -(-len(self.task.responses) // self.list_size)

    @property
    def in_waves(self) -> bool:
        """Whether its rule looks before all k are drawn. Of one response only `precision` does."""
        return self.stop.looks_early and (len(self.task.responses) > 1 or self.stop.judges_singles)


@dataclass(frozen=True, slots=True)
class Started:
    """All that can be refused has been checked; the first samples are under way."""

    list_size: int
    """Responses that a sample shows at most."""


@dataclass(frozen=True, slots=True)
class WaveEnd:
    """What is known after a wave."""

    verdict: Verdict | None
    """None while a response has no score, and where nobody asked."""
    decision: Decision
    k_used: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """The answer, with all that led to it."""

    verdict: Verdict
    outcomes: tuple[Trajectory | Failure, ...]
    """The samples that are in it, in launch order."""
    stop_reason: StopReason
    risk: float
    """Predicted probability that all k samples would decide otherwise."""
    k_used: int
    """Readings of each response."""
    list_size: int
    """Responses that a sample showed at most."""
    dropped: bool
    """Whether responses were dropped on the way."""
    first_wave: Floats | None
    """(m, n), the ballots of the first wave under `aggregate`, read without those that came later; None if the deadline
    cut it."""
    aggregate: Aggregate
    """How the samples were added up: as was asked, or `mean` where the meta RM failed."""
    kept: tuple[bool, ...]
    """For each of `outcomes`, whether it voted."""
    ratings: tuple[Rating, ...]
    """What the meta RM said, those of aborted samples left out."""
    arrived_s: float
    """On `time.monotonic`."""
    queue_s: float
    """From arrival until the engine began the first sample."""
    generate_s: float
    """From then until the last sample was finished."""
    total_s: float
    """From arrival to answer."""

    @property
    def samples(self) -> list[Sample]:
        """What was written, also where it gave no scores."""
        return [outcome.sample for outcome in self.outcomes if outcome.sample is not None]

    @property
    def prompt_tokens(self) -> int:
        return sum(sample.prompt_tokens for sample in self.samples)

    @property
    def completion_tokens(self) -> int:
        return sum(sample.completion_tokens for sample in self.samples)

    @property
    def failures(self) -> dict[FailureReason, int]:
        return dict(Counter(outcome.reason for outcome in self.outcomes if isinstance(outcome, Failure)))


Event = Started | Trajectory | Failure | WaveEnd | Judgement
