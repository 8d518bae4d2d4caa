"""What goes over the wire. Field docstrings become the descriptions of the OpenAPI document."""

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
    STOP,
    ChatMessage,
    DecidedStop,
    FixedStop,
    PrecisionStop,
    Query,
    RewardsRequest,
    Stop,
    StrictStop,
)
from grm_server.api.schemas.server import (
    ErrorDetail,
    ErrorResponse,
    Health,
    ModelCard,
    ModelList,
)
from grm_server.api.schemas.wire import (
    HUGE,
    FirstError,
    Text,
    WellFormed,
    Wire,
    well_formed,
)

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
    "STOP",
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
