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
    """order[p] = index of the response that stood at position p. (n,), fewer where the responses were judged in
    blocks."""
    principles: str | None
    """None where all samples had the same, those of the answer."""
    critique: str | None
    scores: tuple[int | None, ...] | None
    """(n,), request order, each 1..10; None for a response that this sample was not shown."""
    expected_scores: tuple[float | None, ...] | None
    """(n,), the expectation of each score given the critique and the scores before it; None where the tokens do not
    tell."""
    meta_reward: float | None
    """The meta RM's probability that these scores are right; None where it was not asked or failed."""
    kept: bool | None
    """Whether this sample voted; None in a stream, before the last sample is there."""
    finish_reason: str | None
    """"stop", or "length": cut at the token budget."""
    completion_tokens: int
    seed: int
    """Of this sample, derived from the request's."""
    finished_s: float | None
    """Seconds from the request's arrival until the sample was written; None where the engine failed."""
    failure: str | None
    """None, or why there are no scores."""


class Usage(Answer):
    """What was spent on the samples of an answer. Samples that were begun and aborted are in the server's metrics."""

    samples: int
    """Samples drawn. Equal to `k_used` unless the responses were judged in blocks."""
    prompt_tokens: int
    """The prompts of all samples."""
    cached_tokens: int
    """Those of `prompt_tokens` that the engine did not have to compute again."""
    completion_tokens: int
    """Generated tokens of all samples."""
    principle_tokens: int
    """Generated tokens of principles that were drawn for the query; 0 where they were there."""
    meta_tokens: int
    """What the meta RM read."""
    meta_cached_tokens: int
    """Those of `meta_tokens` that it did not have to compute again."""


class Timing(Answer):
    """Seconds, as the server measured them."""

    queue_s: float
    generate_s: float
    total_s: float


class Rewards(Answer):
    """What the samples say about n responses. Indices count responses from 0, in request order.

    All probabilities but `p_best_label` are about the judge: what infinitely many of its samples would say, not whether
    it is right.
    """

    id: str
    """The server's name for this judgement."""
    shared: str | None
    """None, or that the judgement was made for an identical request: one "in_flight" when this one came, or an earlier
    one, from the "cache". `id`, `seed`, `usage` and `timing` are those of that judgement."""
    model: str
    rewards: tuple[float, ...]
    """(n,), mean score of each response over the valid samples, 1..10 (aggregates `vote` and `borda`: 0..1)."""
    se: tuple[float, ...]
    """(n,), standard error of each reward."""
    ranking: tuple[int, ...]
    """(n,), response indices, best first; equal ones stand in request order."""
    best: int
    """The first of `ranking`; see `ties` for whether it stands alone."""
    ties: tuple[tuple[int, ...], ...]
    """Groups of responses with equal rewards."""
    p_best: tuple[float, ...]
    """(n,), probability that the response has the highest mean over infinitely many samples. Sums to 1."""
    p_best_label: tuple[float, ...] | None
    """(n,), probability that the response is best by label; None without a calibration (docs/calibration.md)."""
    p_greater: tuple[tuple[float, ...], ...]
    """(n, n), `p_greater[a][b]`: probability that a's mean over infinitely many samples is higher than b's."""
    vote_sums: tuple[int, ...]
    """(n,), sum of scores over the samples that voted. Comparable only within this answer, between equal `votes`."""
    aggregate: str
    """How the samples were added up; "mean" where a meta RM was asked for and failed."""
    meta_rm: str | None
    """"guided"; "failed", so that this is the plain vote; None where no meta RM was asked for."""
    principles: str | None
    """The criteria that all samples judged under; None where each wrote its own."""
    principles_from: str
    """Who wrote them: each "sample", the "request", or the judge for the "query", now or for another request
    ("cache")."""
    k: int
    """Readings of each response that were allowed."""
    k_used: int
    """Readings of each response that were drawn, failed ones included."""
    k_valid: int
    """Samples that gave scores."""
    votes: tuple[int, ...]
    """(n,), samples that gave the response a score and voted."""
    stop_reason: str
    """Why no more samples were drawn: "full_k", "decided", "strict", "precision" or "deadline"."""
    risk_full_k: float
    """Predicted probability that k readings would decide otherwise; 0 at full k."""
    position_effect: tuple[float, ...] | None
    """Points that a response gains by standing at each position, as measured here and balanced out of the rewards; None
    where there is too little to measure."""
    list_size: int
    """Responses that a sample showed at most."""
    failures: Mapping[str, int]
    """Samples without scores, counted by reason."""
    seed: int
    """Send it again to get the same orders and sample seeds."""
    samples: tuple[Sample, ...] | None
    """In launch order if `return_samples` was set, else None."""
    usage: Usage
    timing: Timing
