"""What they get: the judgement, its samples, and the events of a stream."""

from __future__ import annotations

from typing import Literal

from grm_server.api.schemas.request import RewardsRequest
from grm_server.api.schemas.wire import Wire
from grm_server.coalescing.coalescer import Shared
from grm_server.grm.types import Aggregate, EarlyRuleName
from grm_server.judging.query_principles import Origin


class SampleOut(Wire):
    """One sample. A sample that gave no scores says why in `failure` and has `scores: null`; it never votes."""

    index: int
    """Launch order, from 0."""
    order: list[int]
    """order[p] = index of the response that stood at position p."""
    principles: str | None
    """Null where all samples had the same (`principles` of the answer), or the engine failed."""
    critique: str | None
    scores: list[int | None] | None
    """One score per response, in request order, each 1..10; null for a response that this sample was not shown."""
    expected_scores: list[float | None] | None
    """The expectation of each score given the critique and the scores that were sampled before it, at the sampling
    temperature; null where the response was not shown or the tokens do not tell. See `reading`."""
    meta_reward: float | None
    """The meta RM's probability that these scores are right; null where it was not asked or failed."""
    kept: bool | None
    """Whether this sample voted. A weight of 0 is no vote. Null in a stream, before the last sample is there."""
    finish_reason: Literal["stop", "length"] | None
    """"length": principles or critique were cut at the token budget."""
    completion_tokens: int
    seed: int
    """The seed of this sample, derived from the request's."""
    finished_s: float | None
    """Seconds from the request's arrival until this sample was written; null where the engine failed."""
    failure: str | None
    """Null, or why there are no scores: no_scores, wrong_count, out_of_range, engine_error."""


class Usage(Wire):
    """What was spent, as the engine counted it, on the samples of this answer. Samples that were begun and aborted, at
    a deadline or because they were not needed any more, are in the server's metrics only."""

    samples: int
    """Samples drawn. Equal to `k_used` unless the responses were judged in blocks."""

    prompt_tokens: int
    """The prompts of all samples. A sample is written in several engine calls; its prompt is counted once."""
    cached_tokens: int
    """Those of `prompt_tokens` that the engine found in its prefix cache instead of computing them."""
    completion_tokens: int
    """Generated tokens of all samples: principles, critiques and scores."""
    principle_tokens: int
    """Generated tokens of principles that were drawn for the query; 0 where they were there."""
    meta_tokens: int
    """What the meta RM read: the prompt and the judge's turn of each sample that it rated."""
    meta_cached_tokens: int
    """Those of `meta_tokens` that it found in its prefix cache; 0 where another server keeps that to itself."""


class Timing(Wire):
    """Seconds."""

    queue_s: float
    """From arrival until the engine began the first sample."""
    generate_s: float
    """From then until the last sample was finished."""
    total_s: float
    """From arrival to answer."""


class RewardsResponse(Wire):
    """What the samples add up to. Indices count responses from 0, in request order.

    All probabilities but `p_best_label` are about this judge: what infinitely many of its samples would say. They say
    nothing about whether the judge is right."""

    id: str
    shared: Shared | None
    """Null, or that this judgement was made for an identical request: one that was `in_flight` when this came, or an
    earlier one (settings `cache`). `id`, `seed`, `usage` and `timing` are those of that judgement. Requests are
    identical that say the same, defaults filled in, under the same API key; without a `seed` any will do."""
    model: str
    rewards: list[float]
    """One for each response: its mean score, 1..10 (`vote`, `borda`: 0..1). Of responses judged in blocks it is an
    estimate on that scale, and can lie a little beyond its ends. Where `decided` or `strict` stopped early,
    the posterior mean: a margin that stopped the sampling is larger than it would be in the end, and this takes the
    excess back."""
    se: list[float]
    """Standard error of each reward as an estimate of what infinitely many samples of this judge would give."""
    ranking: list[int]
    """Response indices, best first. Equal rewards stand in request order and are listed in `ties`."""
    best: int
    """The first of `ranking`."""
    ties: list[list[int]]
    """Groups of responses with equal rewards."""
    p_best: list[float]
    """Probability that the response has the highest mean over infinitely many samples of this judge. Sums to 1."""
    p_best_label: list[float] | None
    """Probability that the response is the best by label, from `p_best` and the temperature that `grm calibrate` fitted
    on labelled requests. Null without a calibration for this model. Good for requests like those."""
    p_greater: list[list[float]]
    """p_greater[a][b]: probability that a's mean over infinitely many samples is higher than b's; 0.5 for a = b."""
    vote_sums: list[int]
    """One for each response: the sum of its scores over the samples that voted (Liu et al. 2025, eq. 14). Comparable
    only within this answer, and only between responses with equal `votes`."""
    aggregate: Aggregate
    """How the samples were added up; `mean` where a meta RM was asked for and failed."""
    meta_rm: Literal["guided", "failed"] | None
    """Whether the meta RM guided this vote, or failed, so that this is the plain vote that the request preferred to an
    error. Null where it was not asked for."""
    principles: str | None
    """The criteria that all samples judged under; null where each wrote its own."""
    principles_from: Origin
    """Who wrote the principles: each `sample` its own; the `request`; or the judge, once for the `query`, now or for
    another request (`cache`). `sample` where `query` was asked for: they could not be drawn, or not in half the time
    until the deadline."""
    k: int
    """Readings of each response that were allowed."""
    k_used: int
    """Readings of each response that were drawn, failed ones included. Responses that `decided` dropped have fewer."""
    k_valid: int
    """Samples that gave scores."""
    votes: list[int]
    """One for each response: the samples that gave it a score and voted."""
    stop_reason: Literal["full_k", EarlyRuleName, "deadline"]
    """Why no more samples were drawn."""
    risk_full_k: float
    """Predicted probability that k readings would name another best response (target `ranking`: give another ranking),
    by the model of `decided`. At full k it is 0, or what dropping responses on the way risked."""
    position_effect: list[float] | None
    """How many points a response gains by standing at each position, as measured in this request; it is balanced out of
    the rewards. Null with one response or fewer samples than positions."""
    list_size: int
    """Responses that a sample showed at most."""
    failures: dict[str, int]
    """Samples without scores, counted by reason."""
    seed: int
    """The seed that fixes orders and samples."""
    samples: list[SampleOut] | None
    """The samples that voted or failed, in launch order, if `return_samples` was set, else null."""
    usage: Usage
    timing: Timing


class JudgementResponse(Wire):
    """A judgement that was kept."""

    request: RewardsRequest
    """What POST /v1/rewards is to be sent to judge the same again, with the responses in the order in which they were
    judged."""
    answer: RewardsResponse
    """With its samples."""


class StartedOut(Wire):
    """First event of a stream: the request was accepted and its first samples are under way."""

    id: str
    model: str
    k: int
    seed: int
    list_size: int
    """Responses that a sample shows at most."""


class WaveOut(Wire):
    """Event after each wave of a stream in which every response has a score: what is known so far. See
    RewardsResponse."""

    k_used: int
    rewards: list[float]
    se: list[float]
    p_best: list[float]
    ranking: list[int]
    risk_full_k: float
    active: list[int]
    """Responses that go on."""
