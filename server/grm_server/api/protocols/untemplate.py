"""Turns templated text back into chat messages, and separates a response from its prompt. Pure.

Trainers send decoded tokens: the policy's chat template with its special tokens and padding, and long prompts truncated
on the left. The judge has its own chat template and needs the conversation.

Hostile text costs linear time.
"""

from __future__ import annotations

import re

from grm_server.api.protocols.chat_formats import Turn, content_span, stripped, turns_of
from grm_server.grm.types import Message

_EMPTY = (Message("user", ""),)
_EMPTY_THINKING = re.compile(
    r"<(?:seed:)?think>\s{0,4}(?:</(?:seed:)?think>)?|\[THINK\]|<\|(?:START|END)_THINKING\|>|<\|channel>thought\n?(?:<channel\|>)?"
)


def untemplate(text: str) -> tuple[Message, ...]:
    """(m,), m >= 1: the conversation in a templated prompt.

    A generation prompt at the end is removed. After truncation on the left, the rest of the cut turn is the first turn.
    Text in no known template is one user turn.
    """
    turns = turns_of(text)
    if not turns:
        return (Message("user", stripped(text)),)
    # "<think>" may be part of the generation prompt.
    if turns[-1].role == "assistant" and not _EMPTY_THINKING.sub("", stripped(turns[-1].text)):
        turns.pop()
    messages = (Message(turn.role, stripped(turn.text)) for turn in turns if not turn.thought)
    return tuple(message for message in messages if message.content) or _EMPTY


def split_last_turn(text: str) -> tuple[tuple[Message, ...], str] | None:
    """The conversation before the last assistant turn, and that turn; None if they cannot be separated."""
    turns = turns_of(text)
    at = _last_answer(turns)
    if at is None or turns[at].start == 0:
        return None
    start = turns[at].start
    answer = _answer(turns[at:]) if turns[at].thought else trimmed_response(text[start:])
    return untemplate(text[:start]), answer


def _last_answer(turns: list[Turn]) -> int | None:
    """Index of the assistant's last turn, or of the first of the thoughts that stand before it."""
    at = next((at for at in reversed(range(len(turns))) if turns[at].role == "assistant"), None)
    while at and turns[at - 1].thought:
        at -= 1
    return at


def response_after(prompt: str, query: str) -> str:
    """The response in `query`, which is prompt and response as decoded from tokens.

    Decoding may have changed white space and the first token, and either text may be truncated on the left. If the
    prompt is not found, the response is the text after the last assistant header, or all of `query`.
    """
    if query.startswith(prompt):
        return trimmed_response(query[len(prompt) :])
    at = (
        _after_spaced(query, prompt)
        or _after_cut(query, prompt)
        or _overlap(query, prompt)
        or _overlap(query, prompt.rstrip())
    )
    if at is None:
        at = max((turn.start for turn in turns_of(query) if turn.role == "assistant"), default=0)
    return trimmed_response(query[at:])


def trimmed_response(text: str) -> str:
    """The policy's text without end and padding tokens, blank lines before it and white space after it."""
    return _without_channels(text[: content_span(text)[1]].lstrip("\r\n"))


def _without_channels(text: str) -> str:
    """A response in harmony's channels as thoughts in think tags and an answer; any other text as it is."""
    if not text.startswith(("<|channel|>", "<|message|>")):
        return text
    opening = "<|start|>assistant"
    turns = turns_of(opening + text)
    is_harmony = bool(turns) and turns[0].start > len(opening)
    return (_answer(turns) if is_harmony else "") or text


def _answer(turns: list[Turn]) -> str:
    thoughts = "\n".join(stripped(turn.text) for turn in turns if turn.thought)
    answer = "\n\n".join(stripped(turn.text) for turn in turns if not turn.thought)
    return f"<think>\n{thoughts}\n</think>\n\n{answer}" if thoughts else answer


def _after_spaced(query: str, prompt: str) -> int | None:
    """Index in `query` after `prompt`, if they differ only in white space and in tokens at the beginning."""
    at, start = content_span(query)[0], content_span(prompt)[0]
    for char in prompt[start:]:
        if char.isspace():
            continue
        while at < len(query) and query[at].isspace():
            at += 1
        if at == len(query) or query[at] != char:
            return None
        at += 1
    return at


_MIN_OVERLAP_CHARS = 8
"""Characters. Fewer match other text by chance."""


def _after_cut(query: str, prompt: str) -> int | None:
    """Index in `query` after `prompt`, if only the prompt was truncated. None if `query` contains the prompt twice, as
    it may when little of the prompt is left."""
    at = query.find(prompt) if len(prompt) >= _MIN_OVERLAP_CHARS else -1
    return None if at < 0 or query.find(prompt, at + 1) > 0 else at + len(prompt)


def _overlap(query: str, prompt: str) -> int | None:
    """Length of the longest prefix of `query` that is a suffix of `prompt`, or None. Knuth, Morris and Pratt (1977)."""
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
    return length if length >= _MIN_OVERLAP_CHARS else None
