"""What goes over the wire. Field docstrings become the descriptions of the OpenAPI document."""

from __future__ import annotations

import json
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag

from grm_server.grm.types import Aggregate
from grm_server.pipeline.types import Priority
from grm_server.serving.principles import Origin
from grm_server.serving.sharing import Shared


class Wire(BaseModel):
    """Unknown fields are refused: a misspelt option must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


T = TypeVar("T")


def well_formed(value: T) -> T:
    """JSON can spell what is no text, and no tokenizer, log or answer can hold it."""
    try:
        (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None
    return value


WellFormed = AfterValidator(well_formed)
Text = Annotated[str, WellFormed]

FirstError = Field(fail_fast=True)
"""For lists that callers send: a body can hold two million wrong items, and one complaint is enough."""


class ChatMessage(Wire, strict=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


def _query_form(value: object) -> str:
    return "messages" if isinstance(value, list) else "text"


Query = Annotated[
    Annotated[Text, Field(min_length=1), Tag("text")]
    | Annotated[list[ChatMessage], Field(min_length=1), FirstError, Tag("messages")],
    Discriminator(_query_form),
]


HUGE = 10**9
"""Beyond any limit of a server."""


class FixedStop(Wire, strict=True):
    """Draw all k samples."""

    rule: Literal["fixed"]


class DecidedStop(Wire, strict=True):
    """Stop when all k samples would hardly change the decision. The level is a statement of a model: over traffic like
    that which taught the server its priors, at most a share gamma of the requests that stop early would be decided
    otherwise at full k. It does not hold request by request, and a judge of which one critique in five sees a fatal
    flaw can fool it: use `strict` where that matters. What is predicted is this judge's own decision at full k, never
    the truth. The server audits it: metric `grm_audits`."""

    rule: Literal["decided"]
    gamma: float | None = Field(None, gt=0, lt=1)
    """Server default: `stopping.gamma`, 0.05."""
    target: Literal["best", "ranking"] = "best"
    """What must not change: the best response, or the whole ranking, which takes about twice the samples."""


class StrictStop(Wire, strict=True):
    """Stop when the best response at full k is certain up to delta. Proven for every request and any distribution of
    scores, over the orders in which its k samples could have come; dear for that reason."""

    rule: Literal["strict"]
    delta: float | None = Field(None, gt=0, lt=1)
    """Server default: `stopping.delta`, 0.05."""


class PrecisionStop(Wire, strict=True):
    """Stop when no reward's standard error is above `se`. Rewards are plain means: use it where they feed a trainer."""

    rule: Literal["precision"]
    se: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Points of the reward's scale. Server default: `stopping.se`, 0.4."""


Stop = Annotated[FixedStop | DecidedStop | StrictStop | PrecisionStop, Field(discriminator="rule")]


class RewardsRequest(Wire, strict=True):
    """Responses to score. Limits marked "server" are set by the operator and named in the error when exceeded."""

    query: Query
    """The conversation to be answered: a string (one user turn) or chat messages."""
    responses: Annotated[list[Text], FirstError] = Field(min_length=1)
    """The candidate answers, at least one. Server limit: `limits.max_responses`."""
    k: int | None = Field(None, ge=1, le=HUGE)
    """Readings of each response, at most; `stop` says when fewer are enough. One sample reads all responses of a list
    that fits `list_size`, so that k is then the number of samples. Default 16. Server limit: `limits.max_k`."""
    stop: Stop | None = None
    """When to stop before k. Default: `{"rule": "decided", "gamma": 0.05}`. With one response there is nothing to
    decide: `decided` and `strict` then draw all k."""
    deadline_s: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Seconds from arrival until the votes there are must be returned, `stop_reason: "deadline"`; 504 if a response has
    fewer than `min_votes`. The rest is aborted. Default and server limit: `limits.max_deadline_s`."""
    aggregate: Aggregate | None = None
    """How samples are added up. `mean`: of the scores (default). `winsorised`: scores held within 2 points of their
    median over the samples, for a judge of which more than a fifth is garbage. `vote`: the share of samples in which
    the response is the best shown. `borda`: the mean share of the others shown that it beats. There is no median: it
    ties too often. With a meta RM, which gives each sample the probability p that its scores are right: `meta_hinge`
    weighs scores by max(p - p0, 0), p0 = 0.5 (server: `meta_rm.p0`), and goes with every `stop`; `meta_top` lets the
    `k_meta` samples with the highest p vote (Liu et al. 2025), and draws all k."""
    k_meta: int | None = Field(None, ge=1, le=HUGE)
    """`meta_top`: how many of k samples vote; of fewer than k samples the same share. Default k/2."""
    meta_rm_failure: Literal["error", "vote"] | None = None
    """When the meta RM fails: answer with 503, or with the plain mean of all samples and `meta_rm: "failed"`. Server
    default: `meta_rm.failure`, `error`."""
    reading: Literal["sampled", "expected"] | None = None
    """`sampled`: scores as written. `expected`: the last score that a sample writes is replaced by its expectation,
    where the tokens tell it; the others stay, since in a list their expectations can add noise to differences. Default:
    `expected` for one response, else `sampled`."""
    list_size: int | None = Field(None, ge=2, le=HUGE)
    """Responses that one sample shows at most. A longer list, or one that does not fit the model's context, is judged
    in balanced blocks: each response equally often, each pair as equally often as can be, and rewards are those of the
    model score = response + sample. Server default: `judge.list_size`, 8."""
    task: str = Field("", max_length=64, pattern=r"^[A-Za-z0-9_.:/-]*$")
    """A tag for requests that are alike, such as `safety` or `math`: they share the priors that `decided` learns."""
    temperature: float | None = Field(None, gt=0, le=2, allow_inf_nan=False)
    """Sampling temperature of principles, critique and scores. Default 0.5, the paper's."""
    seed: int | None = Field(None, ge=0, lt=2**53)
    """Fixes the orders and the seed of every sample of this request. Other requests with the same seed have other
    ones, so that it may be the same for all. Default: drawn by the server and returned. Identical requests share one
    judgement (`shared`); for independent ones send different seeds."""
    max_critique_tokens: int | None = Field(None, ge=16, le=HUGE)
    """Token budget of one sample's principles and critique together; half of it at most goes to the principles. What
    reaches it is cut, up to a block of the engine's prefix cache (16 or 32 tokens) early, the scores are read all the
    same, and the sample says `finish_reason: "length"`.
    Server limit: `limits.max_critique_tokens`."""
    reference: Text | None = Field(None, min_length=1)
    """A known good answer, shown to the judge."""
    principles: Text | None = Field(None, min_length=1)
    """Criteria to judge under, the same in every sample. Default: see `principles_from`."""
    principles_from: Literal["sample", "query"] | None = None
    """Without `principles`: the judge writes its own in every `sample`, or once for the `query`, before it sees a
    response; what it wrote then serves all requests with this query. Fewer tokens, and one standard for all groups of a
    query; but `se` and `p_best` then say what samples under these principles would give. Server default:
    `judge.principles_from`, `sample`."""
    hint: int | None = Field(None, ge=0, le=HUGE)
    """For collecting training data, never for judging: tells the judge the label, the index of the best response, or of
    one response 0 (bad) or 1 (good)."""
    min_votes: int = Field(1, ge=1, le=HUGE)
    """Answer with 502 when a response has fewer scores than this; no rule stops, and no response is dropped, before it
    has them. At most k."""
    priority: Priority = "normal"
    """Which of your requests go first where some must wait. It takes nothing from other API keys: each gets its fair
    share, whatever its priorities."""
    return_samples: bool = False
    """Return every sample: its order, principles, critique and scores."""


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
    stop_reason: Literal["full_k", "decided", "strict", "precision", "deadline"]
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


class ErrorDetail(Wire):
    """What went wrong and whether to try again."""

    code: str
    message: str
    param: str | None
    """The request field at fault, as a dotted path, or null."""
    retryable: bool
    """Whether the same request may succeed later."""
    details: dict[str, int]
    """Counts that explain the failure, e.g. failed samples by reason."""


class ErrorResponse(Wire):
    """The one shape of every error."""

    error: ErrorDetail


class Health(Wire):
    status: Literal["live", "ready", "not_ready"]
    reason: str | None = None
    """Why the server is not ready."""


class ModelCard(Wire):
    id: str
    role: Literal["judge", "meta_rm"] = "judge"
    object: Literal["model"] = "model"
    owned_by: str = "grm-server"
    max_model_len: int | None = None
    """Tokens of prompt and completion together; null where another server knows."""


class ModelList(Wire):
    object: Literal["list"] = "list"
    data: list[ModelCard]
