"""The routes. Each is a few lines: convert, call, convert back."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from grm_server.api import schemas
from grm_server.api.convert import RequestPolicy, to_response, to_score_request
from grm_server.api.disconnect import unless_disconnected
from grm_server.engine.base import Sampler
from grm_server.errors import GRMError
from grm_server.grm.prompts import JudgeTemplate
from grm_server.pipeline import score
from grm_server.telemetry.metrics import Metrics


@dataclass(slots=True)
class Service:
    """What the routes need. The sampler is set when the engine is up, before the first connection is taken."""

    template: JudgeTemplate
    policy: RequestPolicy
    metrics: Metrics
    sampler: Sampler = field(init=False)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
_ERRORS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": schemas.ErrorResponse,
        "description": "The prompt does not fit the model's context, or cannot be encoded.",
    },
    413: {"model": schemas.ErrorResponse, "description": "The body is too large."},
    422: {
        "model": schemas.ErrorResponse,
        "description": "A field is wrong, unknown or over a limit; `param` names it.",
    },
    502: {"model": schemas.ErrorResponse, "description": "Fewer samples than `min_votes` gave scores."},
    503: {"model": schemas.ErrorResponse, "description": "The engine is dead. See `Retry-After`."},
}

router = APIRouter()


@router.post("/v1/rewards", responses=_ERRORS, summary="Score responses", tags=["rewards"])
async def rewards(request: Request, body: schemas.RewardsRequest, service: ServiceDep) -> schemas.RewardsResponse:
    """Draw k samples, each with principles, a critique and a score from 1 to 10 for every response, and vote."""
    with service.metrics.in_flight.track_inprogress():
        try:
            service.sampler.check()
            score_request = to_score_request(body, service.policy)
            judgement = await unless_disconnected(
                request, score(score_request, service.template, service.sampler, service.metrics)
            )
        except GRMError as error:
            service.metrics.requests.labels(error.code).inc()
            raise
    return to_response(
        judgement,
        score_request,
        request_id=f"rw-{secrets.token_hex(8)}",
        model=service.sampler.model,
        return_samples=body.return_samples,
    )


@router.get("/health/live", tags=["operation"])
async def live() -> schemas.Health:
    """The process answers."""
    return schemas.Health(status="live")


@router.get("/health/ready", tags=["operation"], responses={503: {"model": schemas.Health}})
async def ready(service: ServiceDep, response: Response) -> schemas.Health:
    """The engine takes requests."""
    try:
        service.sampler.check()
    except GRMError as error:
        response.status_code = 503
        return schemas.Health(status="not_ready", reason=error.message)
    return schemas.Health(status="ready")


@router.get("/v1/models", tags=["operation"])
async def models(service: ServiceDep) -> schemas.ModelList:
    """The judge that this server runs."""
    sampler = service.sampler
    return schemas.ModelList(data=[schemas.ModelCard(id=sampler.model, max_model_len=sampler.max_model_len)])


@router.get("/metrics", tags=["operation"], response_class=Response)
async def metrics(service: ServiceDep) -> Response:
    """Prometheus' text format: this server's metrics, then vLLM's."""
    return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
