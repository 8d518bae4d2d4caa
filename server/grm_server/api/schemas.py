"""What goes over the wire. Field docstrings become the descriptions of the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag


class Wire(BaseModel):
    """Unknown fields are refused: a misspelt option must not be ignored in silence."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _well_formed(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which is no character") from None
    return text


Text = Annotated[str, AfterValidator(_well_formed)]


class ChatMessage(Wire, strict=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


def _query_form(value: object) -> str:
    return "messages" if isinstance(value, list) else "text"


Query = Annotated[
    Annotated[Text, Field(min_length=1), Tag("text")]
    | Annotated[list[ChatMessage], Field(min_length=1), Tag("messages")],
    Discriminator(_query_form),
]


class RewardsRequest(Wire, strict=True):
    """Responses to score. Limits marked "server" are set by the operator and named in the error when exceeded."""

    query: Query
    """The conversation to be answered: a string (one user turn) or chat messages."""
    responses: list[Text] = Field(min_length=1)
    """The candidate answers, at least one. Server limit: `limits.max_responses`."""
    k: int | None = Field(None, ge=1)
    """Samples to draw. Default 8. Server limit: `limits.max_k`."""
    temperature: float | None = Field(None, gt=0, le=2, allow_inf_nan=False)
    """Sampling temperature of principles, critique and scores. Default 0.5, the paper's."""
    seed: int | None = Field(None, ge=0, lt=2**53)
    """Fixes the orders and the seed of every sample. Default: drawn by the server and returned."""
    max_critique_tokens: int | None = Field(None, ge=16)
    """Token budget of one sample's principles and critique together; half of it at most goes to the principles. What
    reaches it is cut, up to a block of the engine's prefix cache (16 or 32 tokens) early, the scores are read all the
    same, and the sample says `finish_reason: "length"`.
    Server limit: `limits.max_critique_tokens`."""
    reference: Text | None = Field(None, min_length=1)
    """A known good answer, shown to the judge."""
    principles: Text | None = Field(None, min_length=1)
    """Criteria to judge under. Default: the judge writes its own in every sample."""
    min_votes: int = Field(1, ge=1)
    """Answer with 502 when fewer samples than this gave scores. At most k."""
    return_samples: bool = False
    """Return every sample: its order, principles, critique and scores."""


class SampleOut(Wire):
    """One sample. A sample that gave no scores says why in `failure` and has `scores: null`; it never votes."""

    index: int
    """Launch order, 0..k-1."""
    order: list[int]
    """order[p] = index of the response that stood at position p."""
    principles: str | None
    """Null where they were given in the request, or the engine failed."""
    critique: str | None
    scores: list[int] | None
    """One score per response, in request order, each 1..10."""
    finish_reason: Literal["stop", "length"] | None
    """"length": principles or critique were cut at the token budget."""
    completion_tokens: int
    failure: str | None
    """Null, or why there are no scores: no_scores, wrong_count, out_of_range, engine_error."""


class Usage(Wire):
    """Tokens spent, as the engine counted them."""

    prompt_tokens: int
    """The prompts of all samples. A sample is written in several engine calls; its prompt is counted once."""
    cached_tokens: int
    """Those of `prompt_tokens` that the engine found in its prefix cache instead of computing them."""
    completion_tokens: int
    """Generated tokens of all samples: principles, critiques and scores."""


class Timing(Wire):
    """Seconds."""

    queue_s: float
    """From arrival until the engine began the first sample."""
    generate_s: float
    """From then until the last sample was finished."""
    total_s: float
    """From arrival to answer."""


class RewardsResponse(Wire):
    """The votes of k samples. Indices count responses from 0, in request order."""

    id: str
    model: str
    rewards: list[float]
    """One for each response: its mean score over the valid samples, 1..10."""
    ranking: list[int]
    """Response indices, best first. Equal sums stand in request order and are listed in `ties`."""
    best: int
    """The first of `ranking`."""
    ties: list[list[int]]
    """Groups of responses with equal `vote_sums`."""
    vote_sums: list[int]
    """One for each response: the sum of its scores over the valid samples (Liu et al. 2025, eq. 14). Comparable only
    within this answer, since samples that gave no scores are missing from it."""
    k: int
    """Samples drawn."""
    k_valid: int
    """Samples that gave scores and voted."""
    failures: dict[str, int]
    """Samples without scores, counted by reason."""
    seed: int
    """The seed that fixes orders and samples."""
    samples: list[SampleOut] | None
    """All samples in launch order if `return_samples` was set, else null."""
    usage: Usage
    timing: Timing


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
    object: Literal["model"] = "model"
    owned_by: str = "grm-server"
    max_model_len: int
    """Tokens of prompt and completion together."""


class ModelList(Wire):
    object: Literal["list"] = "list"
    data: list[ModelCard]
