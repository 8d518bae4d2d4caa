"""Errors, health and models."""

from __future__ import annotations

from typing import Literal

from grm_server.api.schemas.wire import Wire


class ErrorDetail(Wire):
    """What went wrong, and whether to retry."""

    code: str
    message: str
    param: str | None
    """The request field at fault, as a dotted path, or null."""
    retryable: bool
    """Whether the same request may succeed later."""
    details: dict[str, int]
    """Counts that explain the failure, e.g. failed samples by reason."""


class ErrorResponse(Wire):
    """The one shape of all errors."""

    error: ErrorDetail


class Health(Wire):
    status: Literal["live", "ready", "not_ready"]
    reason: str | None = None
    """Why the server is not ready."""


class Index(Wire):
    """The answer of `GET /`: the paths where to go next."""

    name: Literal["GRM Server"] = "GRM Server"
    version: str
    rewards: str = "POST /v1/rewards"
    models: str = "/v1/models"
    health: str = "/health/ready"
    metrics: str = "/metrics"
    docs: str = "/docs"
    openapi: str = "/openapi.json"


class ModelCard(Wire):
    id: str
    role: Literal["judge", "meta_rm"] = "judge"
    object: Literal["model"] = "model"
    owned_by: str = "grm-server"
    max_model_len: int | None = None
    """Tokens of prompt and completion together; null if the model runs on another server."""


class ModelList(Wire):
    object: Literal["list"] = "list"
    data: list[ModelCard]
