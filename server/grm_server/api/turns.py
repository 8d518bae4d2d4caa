"""What the turns of a chat say, as text for the judge. Pure.

A turn may hold more than a text: parts, tool calls, a refusal, a tool's result, reasoning. The judge is shown all but
the reasoning, so a turn that said something is never empty. Messages of the Chat Completions and Messages APIs and
items of the Responses API are accepted, also malformed ones.

The client (`grm_client.turns`) passes the same cases, tests/turns/cases.json.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from grm_server.grm.types import Message, Role

_ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("assistant", "model"), "assistant"),
    **dict.fromkeys(("tool", "function", "ipython", "observation", "tool_response"), "tool"),
}
_MEDIA = ("image", "audio", "video", "file")
_TEXTS = ("text", "input_text", "output_text", "summary_text")
_REASONING = ("thinking", "redacted_thinking", "reasoning", "reasoning_content")
_ARGUMENTS = ("arguments", "input", "parameters", "action", "code", "queries")
_RESULT = "[Tool result"
_MAX_NESTING = 4
"""Of tool results in parts. Deeper ones are only named."""

REASONING_ONLY = "[reasoning without an answer]"
"""Shown for an assistant that reasoned and then said nothing, which is not an empty response."""


@dataclass(frozen=True, slots=True)
class _Said:
    role: Role
    text: str
    name: str = ""
    """The speaker, if the message names one."""


def as_messages(items: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    """The conversation of these messages. Tool results are turns of their own; reasoning is left out."""
    return tuple(Message(turn.role, f"{turn.name}: {turn.text}" if turn.name else turn.text) for turn in _said(items))


def as_response(items: Iterable[Mapping[str, Any]]) -> str:
    """The response of a policy that wrote these messages. Turns of tools and users among them are marked as such."""
    items = list(items)
    turns = [
        turn.text if turn.role in ("assistant", "tool") else f"[{turn.role.capitalize()} turn]\n{turn.text}"
        for turn in _said(items)
        if turn.text
    ]
    return "\n\n".join(turns) or (REASONING_ONLY if any(map(_reasons, items)) else "")


def _said(items: Iterable[Mapping[str, Any]]) -> Iterator[_Said]:
    tools: dict[str, str] = {}
    """Call id -> name of the tool."""
    for item in items:
        yield from _turns(item, tools)


def _turns(item: Mapping[str, Any], tools: dict[str, str]) -> Iterator[_Said]:
    """The turns of one message or item: its tool results, and then what its own role says."""
    role, kind = _ROLES.get(str(item.get("role")), "user"), str(item.get("type"))
    if item.get("role") is None and kind != "None":
        if kind in _REASONING:
            return
        if kind.endswith(("_output", "_result")):
            yield _Said("tool", _result(item, tools))
            return
        if kind.endswith(("_call", "tool_use")):
            yield _Said("assistant", _call(item, tools))
            return
        role = "assistant" if kind == "message" else "user"
    if role == "tool":
        yield _Said("tool", _result(item, tools))
        return
    words, results = _blocks(item.get("content"), tools)
    yield from (_Said("tool", result) for result in results)
    words += [text for text in (_trimmed(item.get("refusal")), _audio(item.get("audio"))) if text]
    words += [_call(call, tools) for call in _listed(item.get("tool_calls"))]
    words += [_call(call, tools) for call in _listed(item.get("function_call"))]
    text = "\n\n".join(words)
    if not text and role == "assistant" and _reasons(item):
        text = REASONING_ONLY
    if text or not results:
        yield _Said(role, text, str(item.get("name") or "").strip() if text else "")


def _blocks(content: object, tools: dict[str, str], depth: int = 0) -> tuple[list[str], list[str]]:
    """Texts and tool calls of a message's content, and the tool results in it. Text parts in a row are one text."""
    words, results, run = list[str](), list[str](), ""
    for part in _listed(content):
        kind = str(part.get("type")) if isinstance(part, Mapping) else ""
        if kind in _REASONING:
            continue
        if kind.endswith("tool_result"):
            results.append(_result(part, tools, depth + 1))
        elif kind.endswith(("_call", "tool_use")):
            words += [_trimmed(run), _call(part, tools)]
            run = ""
        else:
            run += _part(part)
    return [text for text in (*words, _trimmed(run)) if text], results


def _part(part: object) -> str:
    """A part's text. A part without text becomes its kind in brackets, e.g. `[image]`."""
    if not isinstance(part, Mapping):
        return _as_json(part)
    kind = part.get("type")
    for name in ("text", "refusal", "transcript"):
        text = part.get(name)
        if isinstance(text, Mapping):
            text = text.get("value")
        if text is not None:
            return _as_json(text)
    if kind in _TEXTS:
        return ""
    if kind is None:
        kind = next((name for name in _MEDIA if name in part), "")
    media = next((name for name in _MEDIA if name in str(kind)), None)
    return f"[{media or (kind if re.fullmatch('[a-z_]{1,32}', str(kind)) else 'data')}]"


def _result(item: Mapping[str, Any], tools: Mapping[str, str], depth: int = 0) -> str:
    """A tool's result, marked as such."""
    content = item.get("output") if "output" in item else item.get("content")
    if depth > _MAX_NESTING:
        content = None
    if isinstance(content, Mapping) and "type" not in content and "text" not in content:
        words = [_as_json(content)]
    else:
        blocks, results = _blocks(content, {}, depth)
        words = [*results, *blocks]
    text = "\n\n".join(words)
    if text.startswith(_RESULT):
        return text
    call = item.get("tool_call_id") or item.get("tool_use_id") or item.get("call_id")
    name = str(item.get("name") or tools.get(str(call)) or "").strip()
    return "\n".join(filter(None, (f"{_RESULT}: {name}]" if name else f"{_RESULT}]", text)))


def _call(call: object, tools: dict[str, str]) -> str:
    """A tool call: its name and its arguments."""
    if not isinstance(call, Mapping):
        return f"[Tool call]\n{_as_json(call)}".rstrip()
    function = next((call[key] for key in ("function", "custom") if isinstance(call.get(key), Mapping)), call)
    name = str(function.get("name") or call.get("type") or "").strip()
    arguments = next((function[key] for key in _ARGUMENTS if function.get(key) is not None), None)
    for key in ("id", "call_id"):
        if call.get(key) and name:
            tools[str(call[key])] = name
    text = "" if arguments is None else _trimmed(_as_json(arguments))
    return "\n".join(filter(None, (f"[Tool call: {name}]" if name else "[Tool call]", text)))


def _audio(audio: object) -> str:
    if not isinstance(audio, Mapping):
        return ""
    return _trimmed(audio.get("transcript")) or "[audio]"


def _reasons(item: Mapping[str, Any]) -> bool:
    """Whether a message or item holds reasoning."""
    parts = (part for part in _listed(item.get("content")) if isinstance(part, Mapping))
    return (
        item.get("type") in _REASONING
        or any(item.get(key) for key in _REASONING)
        or any(part.get("type") in _REASONING for part in parts)
    )


def _listed(value: object) -> list[Any]:
    """The parts of a content, the calls of a message: a list of them, one alone, or none."""
    if value is None:
        return []
    return [value] if isinstance(value, str | Mapping) or not isinstance(value, Iterable) else list(value)


def _as_json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _trimmed(text: object) -> str:
    """Text without blank lines before it and white space after it. The indent of code is kept."""
    return text.lstrip("\r\n").rstrip() if isinstance(text, str) else ""
