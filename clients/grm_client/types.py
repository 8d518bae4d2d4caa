"""What the server answers.

Unknown fields are ignored and words such as `finish_reason` are plain strings, so that a newer server, which may say
more, is still understood. The server itself is strict: it refuses a request field that it does not know.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """Base of all parts of an answer."""

    model_config = ConfigDict(extra="ignore", frozen=True, use_attribute_docstrings=True)


class Sample(Answer):
    """One reading by the judge. A sample that gave no scores says why in `failure` and did not vote."""

    index: int
    """Launch order, 0..k-1."""
    order: tuple[int, ...]
    """(n,), order[p] = index of the response that stood at position p."""
    principles: str | None
    critique: str | None
    scores: tuple[int, ...] | None
    """(n,), request order, each 1..10."""
    finish_reason: str | None
    """"stop", or "length": cut at the token budget."""
    completion_tokens: int
    failure: str | None
    """None, or why there are no scores."""


class Usage(Answer):
    """Tokens."""

    prompt_tokens: int
    """The prompts of all samples."""
    cached_tokens: int
    """Those of `prompt_tokens` that the engine did not have to compute again."""
    completion_tokens: int
    """Generated tokens of all samples."""


class Timing(Answer):
    """Seconds, as the server measured them."""

    queue_s: float
    generate_s: float
    total_s: float


class Rewards(Answer):
    """The votes of k samples on n responses. Indices count responses from 0, in request order."""

    id: str
    """The server's name for this request, found in its log."""
    model: str
    rewards: tuple[float, ...]
    """(n,), mean score of each response over the valid samples, 1..10."""
    ranking: tuple[int, ...]
    """(n,), response indices, best first; equal ones stand in request order."""
    best: int
    """The first of `ranking`; see `ties` for whether it stands alone."""
    ties: tuple[tuple[int, ...], ...]
    """Groups of responses with equal `vote_sums`."""
    vote_sums: tuple[int, ...]
    """(n,), sum of scores over the valid samples. Comparable only within this answer."""
    k: int
    """Samples drawn."""
    k_valid: int
    """Samples that gave scores and voted."""
    failures: Mapping[str, int]
    """Samples without scores, counted by reason."""
    seed: int
    """Send it again to get the same orders and sample seeds."""
    samples: tuple[Sample, ...] | None
    """(k,) in launch order if `return_samples` was set, else None."""
    usage: Usage
    timing: Timing
