"""Options of a request, typed: editors complete them, and a type checker finds a misspelt one."""

from __future__ import annotations

from typing import Literal, Required, TypedDict

Aggregate = Literal["mean", "winsorised", "vote", "borda", "meta_hinge", "meta_top"]
Priority = Literal["high", "normal", "low"]
Thinking = Literal["on", "off", "auto"]


class FixedStop(TypedDict):
    """Draw all k samples."""

    rule: Literal["fixed"]


class DecidedStop(TypedDict, total=False):
    """Stop when all k samples are unlikely to change the decision."""

    rule: Required[Literal["decided"]]
    gamma: float | None
    """Predicted share of early stops that all k samples would decide otherwise, 0 to 1."""
    target: Literal["best", "ranking"]
    """What must not change: the best response (default), or the whole ranking."""


class StrictStop(TypedDict, total=False):
    """Stop when the best response at full k is certain up to delta."""

    rule: Required[Literal["strict"]]
    delta: float | None


class PrecisionStop(TypedDict, total=False):
    """Stop when no reward's standard error is above `se`."""

    rule: Required[Literal["precision"]]
    se: float | None


Stop = FixedStop | DecidedStop | StrictStop | PrecisionStop


class RewardOptions(TypedDict, total=False):
    """Optional fields of a request. An option that is None or absent takes the server's default. The server refuses
    unknown options.

    How many samples:
      k: maximum number of samples for each response
      stop: when to stop before k: {"rule": "fixed" | "decided" | "strict" | "precision", ...}
      deadline_s: seconds until the server answers with the votes it has
      min_votes: fail if any response has fewer votes
      list_size: maximum number of responses that one sample shows
      priority: "high", "normal" or "low", among your own queued requests
    How they are combined:
      aggregate: "mean", "winsorised", "vote" or "borda"; with a meta RM "meta_hinge" or "meta_top"
      k_meta: for "meta_top", how many samples vote
      meta_rm_failure: "error" or "vote"
      reading: "sampled" or "expected"
    What the judge sees and writes:
      reference: a known good answer
      principles: criteria to judge by
      principles_from: "sample" or "query"
      thoughts: "keep" or "drop", of a policy that thinks before it answers
      hint: the label, for collecting training data only
      format: name of one of the server's formats
      thinking: "on", "off" or "auto"
      temperature, seed, max_critique_tokens, max_thought_tokens: of the sampling
    Else:
      task: tag for similar requests
      return_samples: also return what the judge wrote
    """

    k: int | None
    """Maximum number of samples for each response. More samples give more precise rewards and take more time."""
    stop: Stop | None
    """When to stop before k samples: {"rule": "fixed"} (never), {"rule": "decided", "gamma": 0.05, "target": "best"},
    {"rule": "strict", "delta": 0.05} or {"rule": "precision", "se": 0.4}."""
    deadline_s: float | None
    """Seconds until the server answers with the votes it has. Keep it below the client's `timeout_s`."""
    aggregate: Aggregate | None
    """How samples are aggregated: "mean", "winsorised", "vote", "borda"; with a meta RM "meta_hinge" or "meta_top"."""
    k_meta: int | None
    """For "meta_top": how many of the k samples vote. Default: half of them."""
    meta_rm_failure: Literal["error", "vote"] | None
    """If the meta RM fails: "error" raises APIError; "vote" falls back to the plain vote, and the answer says so."""
    reading: Literal["sampled", "expected"] | None
    """"sampled": scores as written. "expected": the last score of a sample is the expectation over its tokens."""
    list_size: int | None
    """Maximum number of responses that one sample shows. Longer lists are judged in balanced blocks."""
    task: str | None
    """Tag for similar requests, such as "math". They share the statistics that the server learns for `decided`."""
    temperature: float | None
    """Sampling temperature of principles, critique and scores."""
    seed: int | None
    """Fixes the order of the responses and the seed of every sample."""
    max_critique_tokens: int | None
    """Token budget of one sample for principles and critique together."""
    format: str | None
    """The judge's format, one that the server has loaded: what it is asked, and how it answers."""
    thinking: Thinking | None
    """Whether the judge writes a thought first, where its format has one. "auto": the model decides."""
    max_thought_tokens: int | None
    """Token budget of one sample's thought. A longer one is closed, and the judge goes on."""
    reference: str | None
    """A known good answer to show to the judge."""
    principles: str | None
    """Criteria to judge by, instead of the judge's own."""
    principles_from: Literal["sample", "query"] | None
    """Without `principles`: "sample", the judge writes its own in every sample; or "query", it writes them once for
    all requests with this query."""
    thoughts: Literal["keep", "drop"] | None
    """"drop": the judge is not shown what a policy thought before it answered, between tags such as `<think>`."""
    hint: int | None
    """The label, shown to the judge. For collecting training data, never for judging."""
    min_votes: int | None
    """Raise APIError if any response has fewer votes."""
    priority: Priority | None
    """"high", "normal" or "low": order among the queued requests of the same API key."""
    return_samples: bool | None
    """Also return what the judge wrote."""


def merged(defaults: RewardOptions, options: RewardOptions) -> RewardOptions:
    """All options; those of the second take precedence."""
    return {**defaults, **options}
