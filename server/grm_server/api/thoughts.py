"""Removes a policy's thoughts from its response, with `thoughts=drop`. Pure; linear time.

A thought stands between tags. The template may have opened it, so that a response begins inside; and a response may be
cut before it closes. The client (`grm_client.thoughts`) passes the same cases, tests/turns/thoughts.json.
"""

from __future__ import annotations

from grm_server.api.turns import REASONING_ONLY

_OPENING = (
    *("<think>", "<thinking>", "<seed:think>", "<seed:thinking>", "[THINK]", "<|START_THINKING|>"),
    "<|channel>thought",
)
_CLOSING = (
    *("</think>", "</thinking>", "</seed:think>", "</seed:thinking>", "[/THINK]", "<|END_THINKING|>"),
    "<channel|>",
)
MAX_THOUGHTS = 256
"""Of one response. What follows is kept: four megabytes of text can hold half a million tags."""


def opens_thought(prompt: str) -> bool:
    """Whether a templated prompt ends inside a thought."""
    return prompt[-64:].rstrip().endswith(_OPENING)


def without_thoughts(text: str, *, opened: bool = False) -> str:
    """The response without its thoughts. A response that is all thoughts becomes `REASONING_ONLY`.

    opened: whether the prompt opened a thought. If a closing tag comes before any opening one, it did too.
    """
    openings, closings = _Tags(text, _OPENING), _Tags(text, _CLOSING)
    first, closing = openings.after(0), closings.after(0)
    if first is None and closing is None and not opened:
        return text
    parts, at = list[str](), 0
    inside = opened or (closing is not None and (first is None or closing[0] < first[0]))
    for _ in range(2 * MAX_THOUGHTS):
        tag = (closings if inside else openings).after(at)
        if not inside:
            parts.append(text[at : len(text) if tag is None else tag[0]])
        if tag is None:
            break
        inside, at = not inside, tag[1]
    else:
        parts.append(text[at:])
    answer = "".join(parts).lstrip("\r\n")
    return answer if answer.strip() or not text.strip() else REASONING_ONLY


class _Tags:
    """Where tags are in a text. A pattern would be slow: it tries all tags at each character of a long run of `<`."""

    def __init__(self, text: str, tags: tuple[str, ...]) -> None:
        self._text = text
        self._next = {tag: text.find(tag) for tag in tags if tag in text}

    def after(self, at: int) -> tuple[int, int] | None:
        """(start, end) of the first tag from `at` on. `at` must not decrease from call to call."""
        for tag in [tag for tag, start in self._next.items() if start < at]:
            self._next[tag] = self._text.find(tag, at)
            if self._next[tag] < 0:
                del self._next[tag]
        return min(((start, start + len(tag)) for tag, start in self._next.items()), default=None)
