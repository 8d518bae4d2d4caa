"""Chat messages as trainers send them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from grm_server.api.protocols.untemplate import to_messages
from grm_server.api.schemas import FirstError, Text, WellFormed
from grm_server.grm.types import Message


class Turn(BaseModel):
    """A message of any role, whose content is a text, a list of parts, or absent."""

    model_config = ConfigDict(frozen=True)

    role: str
    content: Text | Annotated[list[dict[str, Any]], FirstError, WellFormed] | None = None


def conversation(turns: Iterable[Turn]) -> tuple[Message, ...]:
    """(m,), m >= 1. See `to_messages`."""
    return to_messages(turn.model_dump() for turn in turns)
