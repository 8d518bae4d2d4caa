"""Request and response bodies. Field docstrings become the descriptions in the OpenAPI document."""

from grm_server.api.schemas.answer import (
    JudgementResponse,
    RewardsResponse,
    SampleOut,
    StartedOut,
    Timing,
    Usage,
    WaveOut,
)
from grm_server.api.schemas.request import (
    HUGE,
    ChatMessage,
    DecidedStop,
    FirstError,
    FixedStop,
    PrecisionStop,
    Query,
    RewardsRequest,
    Stop,
    StrictStop,
    Text,
    WellFormed,
    well_formed,
)
from grm_server.api.schemas.server import (
    ErrorDetail,
    ErrorResponse,
    Health,
    ModelCard,
    ModelList,
)
from grm_server.api.schemas.wire import Wire

__all__ = [
    "ChatMessage",
    "DecidedStop",
    "ErrorDetail",
    "ErrorResponse",
    "FirstError",
    "FixedStop",
    "HUGE",
    "Health",
    "JudgementResponse",
    "ModelCard",
    "ModelList",
    "PrecisionStop",
    "Query",
    "RewardsRequest",
    "RewardsResponse",
    "SampleOut",
    "StartedOut",
    "Stop",
    "StrictStop",
    "Text",
    "Timing",
    "Usage",
    "WaveOut",
    "WellFormed",
    "Wire",
    "well_formed",
]
