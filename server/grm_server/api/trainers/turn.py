"""Chat messages as trainers send them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict

from grm_server.api.schemas import Text
from grm_server.grm.types import Message
from grm_server.serving.untemplate import chat


class Turn(BaseModel):
    """A message of any role, whose content may be text, a list of parts, or absent."""

    model_config = ConfigDict(frozen=True)

    role: str
    content: Text | list[dict[str, Any]] | None = None


def conversation(turns: Iterable[Turn]) -> tuple[Message, ...]:
    """(m,), m >= 1. See `chat`."""
    return chat(turn.model_dump() for turn in turns)
