"""What the routes need, and how they come by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Request

from grm_server.api import schemas
from grm_server.api.from_wire import RequestPolicy
from grm_server.api.middleware.drain import Drain
from grm_server.coalescing.coalescer import Coalescer
from grm_server.engine.protocol import JudgeEngine
from grm_server.grm.types import needs_meta_rm
from grm_server.grouping.grouper import Grouper
from grm_server.judging.service import JudgeService
from grm_server.judging.store import JudgementStore
from grm_server.settings import GroupingSettings, TrainerSettings
from grm_server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from grm_server.telemetry.tracing import Tracing


@dataclass(slots=True)
class Service:
    """`judging`, `sharing` and `grouping` are set when the engine is up, before the first connection is taken."""

    policy: RequestPolicy
    metrics: Metrics
    judgements: JudgementStore
    trainers: TrainerSettings
    gathering: GroupingSettings
    drain: Drain = field(default_factory=Drain)
    judging: JudgeService = field(init=False)
    sharing: Coalescer = field(init=False)
    grouping: Grouper = field(init=False)
    tracing: Tracing | None = None

    @property
    def engine(self) -> JudgeEngine:
        return self.judging.engine

    def raise_if_not_ready(self) -> None:
        """Raises EngineError or ShuttingDown where requests that leave all to the server would fail, or wait for an
        engine."""
        self.drain.raise_if_draining()
        self.engine.raise_if_not_ready()
        if (
            self.judging.meta_rm is not None
            and needs_meta_rm(self.policy.aggregate)
            and not self.policy.fallback_to_plain_vote
        ):
            self.judging.meta_rm.raise_if_unavailable()


async def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(_service)]
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": schemas.ErrorResponse,
        "description": "The prompt does not fit the model's context, or cannot be encoded.",
    },
    401: {"model": schemas.ErrorResponse, "description": "No API key, or one that is not valid."},
    408: {"model": schemas.ErrorResponse, "description": "The body did not come in time."},
    413: {"model": schemas.ErrorResponse, "description": "The body is too large."},
    415: {"model": schemas.ErrorResponse, "description": "The body is not called JSON, or is compressed."},
    421: {"model": schemas.ErrorResponse, "description": "The Host header names another server."},
    422: {
        "model": schemas.ErrorResponse,
        "description": "A field is wrong, unknown or over a limit; `param` names it.",
    },
    429: {
        "model": schemas.ErrorResponse,
        "description": "Too much waits for the engine, or the request's turn would come too late for its deadline, or "
        "the API key has used up its requests or samples. Nothing was generated. `Retry-After` says when to come back.",
    },
    502: {"model": schemas.ErrorResponse, "description": "Fewer samples than `min_votes` gave scores."},
    504: {
        "model": schemas.ErrorResponse,
        "description": "At the deadline a response had fewer than `min_votes` scores.",
    },
    503: {
        "model": schemas.ErrorResponse,
        "description": "The engine is dead, or the meta RM; or the server is shutting down. See `Retry-After`.",
    },
}
SLOT_ERRORS: dict[int | str, dict[str, Any]] = {
    409: {"model": schemas.ErrorResponse, "description": "The slot holds another response, or its attempt is over."},
}
"""Of routes that know slots."""
BODY_ERRORS: dict[int | str, dict[str, Any]] = {
    status: ERRORS[status] for status in (401, 408, 413, 415, 421, 422, 429)
}
"""Of routes that read a body and judge nothing."""
