"""What the routes need, and how they come by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Request

from grm_server.api import schemas
from grm_server.api.convert import RequestPolicy
from grm_server.engine.base import Sampler
from grm_server.grm.types import needs_meta_rm
from grm_server.serving.grouping import Grouping
from grm_server.serving.judgements import Judgements, Judging
from grm_server.serving.scoring import Scoring
from grm_server.settings import GroupingSettings, TrainerSettings
from grm_server.telemetry.metrics import Metrics


@dataclass(slots=True)
class Service:
    """`judging` and `grouping` are set when the engine is up, before the first connection is taken."""

    policy: RequestPolicy
    metrics: Metrics
    judgements: Judgements
    trainers: TrainerSettings
    gathering: GroupingSettings
    judging: Judging = field(init=False)
    grouping: Grouping = field(init=False)

    @property
    def scoring(self) -> Scoring:
        return self.judging.scoring

    @property
    def sampler(self) -> Sampler:
        return self.scoring.sampler

    def check(self) -> None:
        """Raises EngineError where requests that leave all to the server would fail, or wait for an engine."""
        self.sampler.ready()
        if self.scoring.meta_rm is not None and needs_meta_rm(self.policy.aggregate) and not self.policy.unguided:
            self.scoring.meta_rm.check()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def tenant_of(request: Request) -> str:
    """The name of the caller's API key."""
    tenant: str = getattr(request.state, "tenant", "anonymous")
    return tenant


ServiceDep = Annotated[Service, Depends(_service)]
ERRORS: dict[int | str, dict[str, Any]] = {
    400: {
        "model": schemas.ErrorResponse,
        "description": "The prompt does not fit the model's context, or cannot be encoded.",
    },
    413: {"model": schemas.ErrorResponse, "description": "The body is too large."},
    422: {
        "model": schemas.ErrorResponse,
        "description": "A field is wrong, unknown or over a limit; `param` names it.",
    },
    429: {
        "model": schemas.ErrorResponse,
        "description": "Too much waits for the engine, or the request's turn would come too late for its deadline. "
        "Nothing was generated. `Retry-After` says when there will be room, by what the engine has done of late.",
    },
    502: {"model": schemas.ErrorResponse, "description": "Fewer samples than `min_votes` gave scores."},
    504: {
        "model": schemas.ErrorResponse,
        "description": "At the deadline a response had fewer than `min_votes` scores.",
    },
    503: {"model": schemas.ErrorResponse, "description": "The engine is dead, or the meta RM. See `Retry-After`."},
}
