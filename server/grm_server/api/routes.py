"""The routes. Each is a few lines: convert, call, convert back."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from grm_server.api import schemas
from grm_server.api.convert import RequestPolicy, to_response, to_sample, to_score_request, to_wave
from grm_server.api.disconnect import unless_disconnected
from grm_server.api.stream import EventStream, Named, wants_stream
from grm_server.engine.base import Sampler
from grm_server.errors import GRMError
from grm_server.grm.types import needs_meta_rm
from grm_server.pipeline.types import Event, Judgement, Started, WaveEnd
from grm_server.serving.scoring import Scoring
from grm_server.telemetry.metrics import Metrics


@dataclass(slots=True)
class Service:
    """What the routes need. `scoring` is set when the engine is up, before the first connection is taken."""

    policy: RequestPolicy
    metrics: Metrics
    scoring: Scoring = field(init=False)

    @property
    def sampler(self) -> Sampler:
        return self.scoring.sampler

    def check(self) -> None:
        """Raises EngineError where requests that leave all to the server would fail."""
        self.sampler.check()
        if self.scoring.meta_rm is not None and needs_meta_rm(self.policy.aggregate) and not self.policy.unguided:
            self.scoring.meta_rm.check()


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
    504: {
        "model": schemas.ErrorResponse,
        "description": "At the deadline a response had fewer than `min_votes` scores.",
    },
    503: {"model": schemas.ErrorResponse, "description": "The engine is dead, or the meta RM. See `Retry-After`."},
}

router = APIRouter()


@router.post(
    "/v1/rewards",
    response_model=schemas.RewardsResponse,
    responses=_ERRORS,
    summary="Score responses",
    tags=["rewards"],
)
async def rewards(
    request: Request, body: schemas.RewardsRequest, service: ServiceDep
) -> schemas.RewardsResponse | EventStream:
    """Draw samples, each with principles, a critique and a score from 1 to 10 for every response, until `stop` says
    that they are enough, and vote.

    With `Accept: text/event-stream` the answer is a stream of events: `started`, a `sample` as each one finishes, a
    `wave` after each wave, and `rewards`, the plain answer; or `error`, in the shape of every error."""
    request_id = f"rw-{secrets.token_hex(8)}"
    streamed = wants_stream(request)
    with _counted_errors(service.metrics):
        service.sampler.check()
        score_request = to_score_request(body, service.policy)
    arrived_s = time.monotonic()
    events = _counted(service, service.scoring.events(score_request, body.task, anytime=streamed))

    def answer(judgement: Judgement) -> schemas.RewardsResponse:
        return to_response(
            judgement,
            score_request,
            request_id=request_id,
            model=service.sampler.model,
            tau=service.scoring.tau,
            return_samples=body.return_samples,
        )

    if not streamed:
        return answer(await unless_disconnected(request, _last(events)))

    def name(event: Event) -> Named:
        match event:
            case Started(list_size=list_size):
                model, seed = service.sampler.model, score_request.seed
                k = score_request.k
                return "started", schemas.StartedOut(id=request_id, model=model, k=k, seed=seed, list_size=list_size)
            case WaveEnd():
                return "wave", to_wave(event)
            case Judgement():
                return "rewards", answer(event)
            case _:
                return "sample", to_sample(event, arrived_s)

    # What can be refused is refused before the first event, with a status of its own.
    return EventStream(_after(await anext(events), events), name)


async def _counted(service: Service, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
    with service.metrics.in_flight.track_inprogress(), _counted_errors(service.metrics):
        async with aclosing(events):
            async for event in events:
                yield event


@contextmanager
def _counted_errors(metrics: Metrics) -> Iterator[None]:
    try:
        yield
    except GRMError as error:
        metrics.requests.labels(error.code).inc()
        raise


async def _last(events: AsyncGenerator[Event]) -> Judgement:
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Judgement):
                return event
    raise RuntimeError("the pipeline ended without a judgement")


async def _after(first: Event, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
    async with aclosing(events):
        yield first
        async for event in events:
            yield event


@router.get("/health/live", tags=["operation"])
async def live() -> schemas.Health:
    """The process answers."""
    return schemas.Health(status="live")


@router.get("/health/ready", tags=["operation"], responses={503: {"model": schemas.Health}})
async def ready(service: ServiceDep, response: Response) -> schemas.Health:
    """The engine takes requests, and the meta RM too where a request that says nothing could not do without."""
    try:
        service.check()
    except GRMError as error:
        response.status_code = 503
        return schemas.Health(status="not_ready", reason=error.message)
    return schemas.Health(status="ready")


@router.get("/v1/models", tags=["operation"])
async def models(service: ServiceDep) -> schemas.ModelList:
    """The judge that this server runs, and its meta RM if it has one."""
    sampler, meta_rm = service.sampler, service.scoring.meta_rm
    cards = [schemas.ModelCard(id=sampler.model, max_model_len=sampler.max_model_len)]
    if meta_rm is not None:
        cards.append(schemas.ModelCard(id=meta_rm.model, role="meta_rm"))
    return schemas.ModelList(data=cards)


@router.get("/metrics", tags=["operation"], response_class=Response)
async def metrics(service: ServiceDep) -> Response:
    """Prometheus' text format: this server's metrics, then vLLM's."""
    return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
