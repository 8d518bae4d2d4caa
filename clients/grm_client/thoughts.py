"""Removes a policy's thoughts from its response, with `thoughts=drop`. Pure; linear time.

A thought stands between tags. The template may have opened it, so that a response begins inside; and a response may be
cut before it closes. The server (`grm_server.api.thoughts`) passes the same cases, tests/turns/thoughts.json.
"""

from __future__ import annotations

import re

from grm_client.turns import REASONING_ONLY

_OPEN = re.compile(r"<(?:seed:)?think(?:ing)?>|\[THINK\]|<\|START_THINKING\|>|<\|channel>thought")
_CLOSE = re.compile(r"</(?:seed:)?think(?:ing)?>|\[/THINK\]|<\|END_THINKING\|>|<channel\|>")


def opens_thought(prompt: str) -> bool:
    """Whether a templated prompt ends inside a thought."""
    tail = prompt[-64:].rstrip()
    opened = max((match.end() for match in _OPEN.finditer(tail)), default=0)
    return opened > 0 and opened == len(tail)


def without_thoughts(text: str, *, opened: bool = False) -> str:
    """The response without its thoughts. A response that is all thoughts becomes `REASONING_ONLY`.

    opened: whether the prompt opened a thought. If a closing tag comes before any opening one, it did too.
    """
    first, closing = _OPEN.search(text), _CLOSE.search(text)
    if first is None and closing is None and not opened:
        return text
    parts, at = list[str](), 0
    inside = opened or (closing is not None and (first is None or closing.start() < first.start()))
    while True:
        match = (_CLOSE if inside else _OPEN).search(text, at)
        if not inside:
            parts.append(text[at : len(text) if match is None else match.start()])
        if match is None:
            break
        inside, at = not inside, match.end()
    answer = "".join(parts).lstrip("\r\n")
    return answer if answer.strip() or not text.strip() else REASONING_ONLY
