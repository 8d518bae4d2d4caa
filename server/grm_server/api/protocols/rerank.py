"""Rerank APIs, which have clients in every language: Cohere's and Jina's rerank, vLLM's rerank and score.

A call with one query and n documents is one group: the documents are the responses, and their relevance is the reward.
"""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from grm_server.api.openapi import ERRORS, judgement_link
from grm_server.api.protocols.batch import check_items, judge_all
from grm_server.api.protocols.options import Options, OptionsDep, rewards_body
from grm_server.api.protocols.scale import scaled
from grm_server.api.schemas import HUGE, FirstError, RewardsRequest, Text
from grm_server.api.service import Service, ServiceDep
from grm_server.errors import InvalidRequest
from grm_server.grm.types import Message
from grm_server.judging.store import Judged

router = APIRouter()
RESPONSES = ERRORS | judgement_link("/id")


class Document(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    text: Text


class RerankCall(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    model: str = ""
    """Ignored."""
    query: Text
    documents: Annotated[list[Text | Document], FirstError] = Field(min_length=1)
    """Texts, or objects with a `text`."""
    top_n: int | None = Field(None, ge=0, le=HUGE, strict=True)
    """Return only the best ones. Null and 0: all."""
    return_documents: bool | None = Field(None, strict=True)
    """Default: true, but false on /v2/rerank."""


class Result(BaseModel):
    index: int
    relevance_score: float
    document: Document | None = None


class RerankUsage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Reranked(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    id: str
    """Id of the judgement: GET /v1/judgements/{id}."""
    model: str
    results: list[Result]
    """Best first."""
    usage: RerankUsage
    meta: dict[str, Any]


@router.post("/rerank", responses=RESPONSES, response_model_exclude_none=True, summary="Rerank: vLLM")
@router.post("/v1/rerank", responses=RESPONSES, response_model_exclude_none=True, summary="Rerank: vLLM, Jina")
@router.post("/v2/rerank", responses=RESPONSES, response_model_exclude_none=True, summary="Rerank: Cohere")
async def rerank(request: Request, body: RerankCall, options: OptionsDep, service: ServiceDep) -> Reranked:
    """The documents, ordered by their reward as answers to the query, best first."""
    texts = [document if isinstance(document, str) else document.text for document in body.documents]
    cohere = request.url.path.endswith("/v2/rerank")
    show = not cohere if body.return_documents is None else body.return_documents
    [judged] = await judge_all(request, service, [_rewards_body(body.query, texts, options, service)])
    rewards = scaled(judged.judgement.verdict.rewards, options.scale(service.trainers.rerank.reward_scale))
    ranking = judged.judgement.verdict.ranking[: body.top_n or None]
    return Reranked(
        id=judged.id,
        model=service.engine.model,
        results=[
            Result(index=i, relevance_score=rewards[i], document=Document(text=texts[i]) if show else None)
            for i in ranking
        ],
        usage=_usage([judged]),
        meta={"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    )


class ScoreCall(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, populate_by_name=True)

    model: str = ""
    """Ignored."""
    text_1: Text | Annotated[list[Text], FirstError] = Field(
        validation_alias=AliasChoices("text_1", "queries", "data_1")
    )
    """The query, or one query per document. Also `queries`, `data_1`."""
    text_2: Text | Annotated[list[Text], FirstError] = Field(
        validation_alias=AliasChoices("text_2", "documents", "items", "data_2")
    )
    """The documents. Also `documents`, `items`, `data_2`."""


class Score(BaseModel):
    index: int
    object: Literal["score"] = "score"
    score: float


class Scored(BaseModel):
    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[Score]
    usage: RerankUsage


@router.post("/score", responses=ERRORS, summary="Score: vLLM")
@router.post("/v1/score", responses=ERRORS, summary="Score: vLLM, older")
async def score(request: Request, body: ScoreCall, options: OptionsDep, service: ServiceDep) -> Scored:
    """The rewards of documents as answers to one query, judged together, or each to its own query. In request order."""
    queries = [body.text_1] if isinstance(body.text_1, str) else body.text_1
    documents = [body.text_2] if isinstance(body.text_2, str) else body.text_2
    check_items("text_2", len(documents), service.policy.limits)
    if len(queries) == 1:
        queries = queries * len(documents)
    if not documents or len(queries) != len(documents):
        raise InvalidRequest(
            f"{len(queries)} queries and {len(documents)} documents: send one query, or one per document",
            param="text_1",
        )
    indices: dict[str, list[int]] = {}
    for index, query in enumerate(queries):
        indices.setdefault(query, []).append(index)
    groups = (
        _rewards_body(query, [documents[i] for i in of_query], options, service) for query, of_query in indices.items()
    )
    judged = await judge_all(request, service, groups)
    rewards = {
        index: reward
        for of_query, one in zip(indices.values(), judged, strict=True)
        for index, reward in zip(
            of_query,
            scaled(one.judgement.verdict.rewards, options.scale(service.trainers.rerank.reward_scale)),
            strict=True,
        )
    }
    return Scored(
        id=judged[0].id if len(judged) == 1 else f"score-{secrets.token_hex(8)}",
        created=int(time.time()),
        model=service.engine.model,
        data=[Score(index=index, score=rewards[index]) for index in range(len(documents))],
        usage=_usage(judged),
    )


def _rewards_body(query: str, documents: list[str], options: Options, service: Service) -> RewardsRequest:
    return rewards_body((Message("user", query),), documents, options, service)


def _usage(judged: list[Judged]) -> RerankUsage:
    prompt = sum(one.judgement.prompt_tokens for one in judged)
    completion = sum(one.judgement.completion_tokens for one in judged)
    return RerankUsage(prompt_tokens=prompt, total_tokens=prompt + completion)
