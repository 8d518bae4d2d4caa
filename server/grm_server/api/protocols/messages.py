"""Messages as trainers send them: of chat APIs, and of OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from grm_server.api.protocols.untemplate import content_text, to_messages
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


def input_messages(content: str | list[dict[str, Any]]) -> tuple[Message, ...]:
    """(m,), m >= 1: the messages in the input of the Responses API, without other items such as reasoning."""
    if isinstance(content, str):
        return (Message("user", content.strip()),)
    return to_messages(item for item in content if "role" in item)


def final_answer(output: Iterable[Mapping[str, Any]]) -> str:
    """The text of the output of the Responses API, without reasoning."""
    return "".join(_message_text(item) for item in output if item.get("type") == "message")


def _message_text(item: Mapping[str, Any]) -> str:
    content = item.get("content")
    if isinstance(content, list):
        content = [part for part in content if isinstance(part, dict) and part.get("type") == "output_text"]
    return content_text(content)
