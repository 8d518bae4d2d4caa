"""Templated text back into chat messages, and a response out of the text that holds its prompt too. Pure.

Trainers decode tokens and send what comes out: the policy's chat template, its special tokens, padding, and long
prompts cut at their left. The judge has a chat template of its own and wants the conversation.

Every pattern is an alternation of short literals, so that hostile text costs linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from grm_server.grm.types import Message, Role

# What tokenizers put at the ends of a text and no turn has as content.
_SPECIAL = (
    *("<s>", "</s>", "<bos>", "<eos>", "<pad>", "[PAD]", "<unk>", "<|endoftext|>", "<|pad|>", "<|vision_pad|>"),
    *("<|im_end|>", "<|end|>", "<end_of_turn>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"),
    *("<|eot|>", "<|finetune_right_pad_id|>", "[/SYSTEM_PROMPT]"),
    *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"),
    *("<|begin▁of▁sentence|>", "<|end▁of▁sentence|>", "<|begin_of_sentence|>", "<|end_of_sentence|>"),
)
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "[SYSTEM_PROMPT]": "system",
    "<<SYS>>": "system",
    "assistant": "assistant",
    "model": "assistant",
    "[/INST]": "assistant",
}
"""Whatever else speaks to the model speaks as a user: user, human, tool, [INST], <</SYS>>."""


@dataclass(frozen=True, slots=True)
class _Format:
    """A family of chat templates: what begins a turn, with the group `role`. A name that lost the token before it to a
    cut at the left begins one too."""

    header: re.Pattern[str]
    needs: re.Pattern[str] | None = None
    """What must be there too, where headers alone could be anybody's text."""


_BAR = "[|｜]"
_DEEPSEEK_BEGIN = rf"<{_BAR}begin[▁_ ]of[▁_ ]sentence{_BAR}>"
_DEEPSEEK_END = rf"<{_BAR}end[▁_ ]of[▁_ ]sentence{_BAR}>"
_LLAMA_ROLE = "(?P<role>system|user|assistant|tool|ipython|)"
_FORMATS = (
    # ChatML, Qwen
    _Format(
        re.compile(r"(?:<\|im_start\|>|\A)(?P<role>system|developer|user|assistant|tool)\n|<\|im_start\|>"),
        needs=re.compile(r"<\|im_(?:start|end)\|>"),
    ),
    # Llama 3
    _Format(re.compile(rf"(?:<\|start_header_id\|>|\A){_LLAMA_ROLE}<\|end_header_id\|>")),
    # Llama 4
    _Format(re.compile(rf"(?:<\|header_start\|>|\A){_LLAMA_ROLE}<\|header_end\|>")),
    # Gemma
    _Format(
        re.compile(r"(?:<start_of_turn>|\A)(?P<role>system|user|model)\n|<start_of_turn>"),
        needs=re.compile("<(?:start|end)_of_turn>"),
    ),
    # DeepSeek V2.5, V3, R1
    _Format(re.compile(rf"<{_BAR}(?P<role>User|Assistant){_BAR}>")),
    # Zephyr, Phi, OLMo, GLM and others
    _Format(re.compile(r"<\|(?P<role>system|user|assistant)\|>")),
    # Llama 2, Mistral
    _Format(re.compile(r"(?P<role>\[INST\]|\[/INST\]|\[SYSTEM_PROMPT\]|<<SYS>>|<</SYS>>)")),
    # DeepSeek V2 and before: words, which count only among this family's tokens
    _Format(
        re.compile(rf"(?:\A|\n\n|(?<={_BAR}>))(?P<role>User|Assistant):"),
        needs=re.compile(rf"{_DEEPSEEK_BEGIN}|{_DEEPSEEK_END}|\n\nAssistant:\Z"),
    ),
)
_BEGIN = re.compile(rf"{_DEEPSEEK_BEGIN}|<s>")
_END_OF_TURN = re.compile(rf"(?:{_DEEPSEEK_END}|</s>)\s{{0,2}}\Z")
_EMPTY_THOUGHT = re.compile(r"<think>\s{0,4}(?:</think>)?")


@dataclass(frozen=True, slots=True)
class _Turn:
    role: Role
    text: str
    start: int
    """Where its text begins."""


def untemplate(text: str) -> tuple[Message, ...]:
    """(m,), m >= 1: the conversation in a templated prompt.

    A generation prompt at its end goes. What a cut at the left has left of a turn is the first turn. Text of no known
    template is one user turn.
    """
    turns = _turns(text)
    if not turns:
        return (Message("user", bare(text)),)
    # "<think>" may be a part of the generation prompt.
    if turns[-1].role == "assistant" and not _EMPTY_THOUGHT.sub("", bare(turns[-1].text)):
        turns.pop()
    messages = (Message(turn.role, bare(turn.text)) for turn in turns)
    return tuple(message for message in messages if message.content) or (Message("user", ""),)


def part(text: str) -> tuple[tuple[Message, ...], str] | None:
    """The conversation before the last assistant turn, and that turn; None where there is no telling them apart."""
    turns = _turns(text)
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
    at = _after_spaced(query, prompt) or _overlap(query, prompt) or _overlap(query, prompt.rstrip())
    if at is None:
        at = max((turn.start for turn in _turns(query) if turn.role == "assistant"), default=0)
    return response(query[at:])


def response(text: str) -> str:
    """What the policy wrote, without the tokens that ended and padded it, blank lines before it and space after it."""
    return text[: _content(text)[1]].lstrip("\r\n")


def bare(text: str) -> str:
    """Text without special tokens and white space at its ends."""
    start, end = _content(text)
    return text[start:end]


def chat(messages: Iterable[Mapping[str, object]]) -> tuple[Message, ...]:
    """Messages of any API as the judge's roles and plain text. Content may be text, a list of parts, or absent."""
    return tuple(
        Message(_ROLES.get(str(message.get("role")), "user"), plain(message.get("content"))) for message in messages
    )


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


def _content(text: str) -> tuple[int, int]:
    """Where text begins and ends that is neither white space nor a special token."""
    start, end = 0, len(text)
    while True:
        while start < end and text[end - 1].isspace():
            end -= 1
        token = next((token for token in _SPECIAL if text.endswith(token, start, end)), None)
        if token is None:
            break
        end -= len(token)
    while True:
        while start < end and text[start].isspace():
            start += 1
        token = next((token for token in _SPECIAL if text.startswith(token, start, end)), None)
        if token is None:
            return start, end
        start += len(token)


def _turns(text: str) -> list[_Turn]:
    """The turns in the text's own format, which is that of the first header in it: later ones may be anybody's words.
    None in text of no known format."""
    found = [
        (first.start(), rank, form)
        for rank, form in enumerate(_FORMATS)
        if (form.needs is None or form.needs.search(text)) and (first := form.header.search(text))
    ]
    if not found:
        return []
    headers = list(min(found, key=lambda one: one[:2])[2].header.finditer(text))
    turns = [_Turn(_role(header), "", header.end()) for header in headers]
    ends = [header.start() for header in headers[1:]] + [len(text)]
    turns = [_Turn(turn.role, text[turn.start : end], turn.start) for turn, end in zip(turns, ends, strict=True)]
    remnant = text[: headers[0].start()]
    if bare(remnant):
        turns.insert(0, _Turn(_before(headers[0], remnant), remnant, 0))
    return turns


def _role(header: re.Match[str]) -> Role:
    name = header["role"] or ""
    return _ROLES.get(name, _ROLES.get(name.lower(), "user"))


def _before(header: re.Match[str], remnant: str) -> Role:
    """Who spoke before the first header: system prompts of some formats have no header of their own, and a cut at the
    left takes any."""
    if header["role"] == "<</SYS>>" or (_BEGIN.match(remnant) and not _END_OF_TURN.search(remnant)):
        return "system"
    return "user" if _role(header) == "assistant" else "assistant"


def _after_spaced(query: str, prompt: str) -> int | None:
    """Where `query` goes on after `prompt`, if they differ in white space and in tokens at the beginning only."""
    at, start = _content(query)[0], _content(prompt)[0]
    for letter in prompt[start:]:
        if letter.isspace():
            continue
        while at < len(query) and query[at].isspace():
            at += 1
        if at == len(query) or query[at] != letter:
            return None
        at += 1
    return at


_LEAST_OVERLAP = 8
"""Letters. Fewer are found in other text by chance."""


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
    for letter in prompt:
        while length and (length == len(query) or query[length] != letter):
            length = border[length - 1]
        if query:
            length += query[length] == letter
    return length if length >= _LEAST_OVERLAP else None
