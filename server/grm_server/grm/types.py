"""The vocabulary of the method.

Indices: i = response, j = sample, p = position shown. `order[p] = i`: the response shown at position p is number i,
so scores are put back by `scores[order[p]] = shown[p]`. The inverse mistake cannot be seen for n <= 2, because every
order of two is its own inverse.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

Role = Literal["system", "user", "assistant"]
Order = tuple[int, ...]
"""(n,), order[p] = i."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation that is to be answered."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Task:
    """What is judged: a conversation and the candidate answers to its last turn."""

    query: tuple[Message, ...]
    responses: tuple[str, ...]
    """(n,), n >= 1."""
    reference: str | None = None
    """A known good answer, shown to the judge."""
    principles: str | None = None
    """Criteria to judge under; None lets the judge write its own."""


@dataclass(frozen=True, slots=True)
class Draw:
    """What sample j will be, decided before anything is generated."""

    index: int
    """j, the launch order: 0..k-1."""
    order: Order
    seed: int
    """0..2**53-1, derived from (request seed, j), so that a JSON client can read it exactly."""


@dataclass(frozen=True, slots=True)
class ScoreToken:
    """One generated token of the score tail, with the distribution it was drawn from."""

    text: str
    logprobs: Mapping[str, float]
    """Token text -> log-probability after temperature and constraint; the likeliest tokens, the drawn one included."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One stretch of a sample: a lead that the judge is given, then text that it writes."""

    name: Literal["principles", "critique", "scores"]
    lead: str
    """Forced text, put before what the model writes."""
    max_tokens: int
    stops: tuple[str, ...] = ()
    """Writing ends before the first of these; the end of the model's turn ends it too."""
    pattern: str | None = None
    """A regular expression that the text is constrained to, with log-probabilities kept; None leaves it free."""


@dataclass(frozen=True, slots=True)
class Script:
    """All that an engine needs to write one sample: the judge's prompt and what follows it."""

    prompt: str
    """One user turn; the engine puts the model's own chat template around it."""
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One raw generation."""

    texts: Mapping[str, str]
    """Segment name -> what the model wrote there, without the lead."""
    cut: tuple[str, ...] = ()
    """Names of free segments that reached their token budget."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens found in the engine's prefix cache."""
    completion_tokens: int = 0
    score_tokens: tuple[ScoreToken, ...] = ()
    started_s: float = 0.0
    """When the engine began this sample, on `time.monotonic`."""
    finished_s: float = 0.0

    @property
    def principles(self) -> str | None:
        """The criteria that the judge wrote; None where they were given to it."""
        return self.texts["principles"].strip() if "principles" in self.texts else None

    @property
    def critique(self) -> str:
        return self.texts.get("critique", "").strip()


class FailureReason(StrEnum):
    """Why a sample has no scores."""

    NO_SCORES = "no_scores"
    """The tail holds no complete list of integers."""
    WRONG_COUNT = "wrong_count"
    """The tail holds another number of scores than responses were shown."""
    OUT_OF_RANGE = "out_of_range"
    """A score is not within 1..10. It is not clamped: a judge that leaves its scale was not judging on it."""
    ENGINE_ERROR = "engine_error"
    """The engine failed this one sample."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that gave no scores: counted and named, never scored."""

    draw: Draw
    reason: FailureReason
    sample: Sample | None = None
    """None when the engine gave nothing."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """A sample that parsed."""

    draw: Draw
    sample: Sample
    scores: tuple[int, ...]
    """(n,), request order, each 1..10."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the votes add up to."""

    rewards: tuple[float, ...]
    """(n,), mean score of each response over the valid samples, 1..10."""
    vote_sums: tuple[int, ...]
    """(n,), sum of scores over the valid samples (Liu et al. 2025, eq. 14). Comparable only within one request."""
    ranking: tuple[int, ...]
    """(n,), response indices, best first; equal sums stand in request order."""
    ties: tuple[tuple[int, ...], ...]
    """Groups of two or more responses with equal sums, best group first."""
    k_valid: int
    failures: Mapping[FailureReason, int] = field(default_factory=dict)

    @property
    def best(self) -> int:
        """The first of `ranking`; see `ties` for whether it stands alone."""
        return self.ranking[0]
