"""What callers ask for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter

from grm_server.api.schemas.wire import HUGE, FirstError, Text, Wire
from grm_server.grm.types import Aggregate
from grm_server.pipeline.types import Priority


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
STOP: TypeAdapter[Stop] = TypeAdapter(Stop)
"""Builds one from its name and parameters."""


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
