"""Templated text back into chat messages, and a response out of the text that holds its prompt too. Pure.

Trainers decode tokens and send what comes out: the policy's chat template, its special tokens, padding, and long
prompts cut at their left. The judge has a chat template of its own and wants the conversation.

Hostile text costs linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from grm_server.api.protocols.chat_formats import ROLES, bare, content_of, turns_of
from grm_server.grm.types import Message

_NOTHING = (Message("user", ""),)
_EMPTY_THOUGHT = re.compile(r"<think>\s{0,4}(?:</think>)?")


def untemplate(text: str) -> tuple[Message, ...]:
    """(m,), m >= 1: the conversation in a templated prompt.

    A generation prompt at its end goes. What a cut at the left has left of a turn is the first turn. Text of no known
    template is one user turn.
    """
    turns = turns_of(text)
    if not turns:
        return (Message("user", bare(text)),)
    # "<think>" may be a part of the generation prompt.
    if turns[-1].role == "assistant" and not _EMPTY_THOUGHT.sub("", bare(turns[-1].text)):
        turns.pop()
    messages = (Message(turn.role, bare(turn.text)) for turn in turns)
    return tuple(message for message in messages if message.content) or _NOTHING


def part(text: str) -> tuple[tuple[Message, ...], str] | None:
    """The conversation before the last assistant turn, and that turn; None where there is no telling them apart."""
    turns = turns_of(text)
    last = next((turn for turn in reversed(turns) if turn.role == "assistant"), None)
    if last is None or last.start == 0:
        return None
    return untemplate(text[: last.start]), response(text[last.start :])


def split(query: str, prompt: str) -> str:
    """The response in `query`, which is prompt and response as decoded from tokens.

    Decoding may have changed white space and the token at the very beginning, and a long prompt may be cut at its left,
    in either of the two. If all fails, the response is what follows the last assistant header, or everything.
    """
    if query.startswith(prompt):
        return response(query[len(prompt) :])
    at = (
        _after_spaced(query, prompt)
        or _after_cut(query, prompt)
        or _overlap(query, prompt)
        or _overlap(query, prompt.rstrip())
    )
    if at is None:
        at = max((turn.start for turn in turns_of(query) if turn.role == "assistant"), default=0)
    return response(query[at:])


def response(text: str) -> str:
    """What the policy wrote, without the tokens that ended and padded it, blank lines before it and space after it."""
    return text[: content_of(text)[1]].lstrip("\r\n")


def chat(messages: Iterable[Mapping[str, object]]) -> tuple[Message, ...]:
    """(m,), m >= 1: messages of any API as the judge's roles and plain text. Content may be text, a list of parts, or
    absent. No messages are an empty user turn."""
    found = tuple(
        Message(ROLES.get(str(message.get("role")), "user"), plain(message.get("content"))) for message in messages
    )
    return found or _NOTHING


def plain(content: object) -> str:
    """The text of a message's content; of a part that is no text, such as an image, its kind in brackets."""
    if isinstance(content, list):
        return "".join(_piece(piece) for piece in content)
    return content.strip() if isinstance(content, str) else ""


def _piece(piece: object) -> str:
    if isinstance(piece, dict):
        text = piece.get("text")
        return text if isinstance(text, str) else f"[{piece.get('type', 'data')}]"
    return str(piece)


def _after_spaced(query: str, prompt: str) -> int | None:
    """Where `query` goes on after `prompt`, if they differ in white space and in tokens at the beginning only."""
    at, start = content_of(query)[0], content_of(prompt)[0]
    for char in prompt[start:]:
        if char.isspace():
            continue
        while at < len(query) and query[at].isspace():
            at += 1
        if at == len(query) or query[at] != char:
            return None
        at += 1
    return at


_LEAST_OVERLAP = 8
"""Letters. Fewer are found in other text by chance."""


def _after_cut(query: str, prompt: str) -> int | None:
    """Where `query` goes on after `prompt`, if the prompt was cut and the query was not. So little can be left of the
    prompt that it stands there twice."""
    at = query.find(prompt) if len(prompt) >= _LEAST_OVERLAP else -1
    return None if at < 0 or query.find(prompt, at + 1) > 0 else at + len(prompt)


def _overlap(query: str, prompt: str) -> int | None:
    """Length of the longest beginning of `query` with which `prompt` ends, or None. Knuth, Morris and Pratt (1977)."""
    query = query[: len(prompt)]
    border = [0] * len(query)
    length = 0
    for at in range(1, len(query)):
        while length and query[at] != query[length]:
            length = border[length - 1]
        length += query[at] == query[length]
        border[at] = length
    length = 0
    for char in prompt:
        while length and (length == len(query) or query[length] != char):
            length = border[length - 1]
        if query:
            length += query[length] == char
    return length if length >= _LEAST_OVERLAP else None
