"""Messages as trainers send them: of chat APIs, and of OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, model_validator

from grm_server.api.schemas import FirstError, Text, WellFormed, well_formed
from grm_server.api.turns import as_messages, as_response
from grm_server.grm.types import Message

_EMPTY = (Message("user", ""),)


class Turn(BaseModel):
    """A message of any role. It says what its content, `refusal`, `tool_calls`, `function_call` and `audio` hold; other
    fields are ignored."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str
    content: Text | Annotated[list[dict[str, Any] | str], FirstError, WellFormed] | None = None

    @model_validator(mode="after")
    def _check_text(self) -> Turn:
        well_formed(self.model_extra)
        return self


def conversation(turns: Iterable[Turn]) -> tuple[Message, ...]:
    """(m,), m >= 1. Without turns, one empty user turn."""
    return as_messages(turn.model_dump() for turn in turns) or _EMPTY


def response_text(turn: Turn) -> str:
    """What the policy's turn says."""
    return as_response([turn.model_dump() | {"role": "assistant"}])


def input_messages(content: str | list[dict[str, Any]]) -> tuple[Message, ...]:
    """(m,), m >= 1: the conversation in the input of the Responses API, without reasoning."""
    if isinstance(content, str):
        return (Message("user", content.strip()),)
    return as_messages(content) or _EMPTY


def final_answer(output: Iterable[Mapping[str, Any]]) -> str:
    """What the output of the Responses API says, tool calls and their results included, without reasoning."""
    return as_response({"role": "assistant"} | dict(item) if item.get("type") == "message" else item for item in output)
