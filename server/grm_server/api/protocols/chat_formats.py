"""The chat templates of policy models: turn headers, roles and special tokens. Pure.

Every pattern is an alternation of short literals, so hostile text costs linear time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from grm_server.grm.types import Role

# Tokens at the ends of a text that are never a turn's content.
_SPECIAL = (
    *("<s>", "</s>", "<bos>", "<eos>", "<pad>", "[PAD]", "<unk>", "<|endoftext|>", "<|pad|>", "<|vision_pad|>"),
    *("<|im_end|>", "<|end|>", "<end_of_turn>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"),
    *("<|eot|>", "<|finetune_right_pad_id|>", "[/SYSTEM_PROMPT]"),
    *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"),
    *("<|begin▁of▁sentence|>", "<|end▁of▁sentence|>", "<|begin_of_sentence|>", "<|end_of_sentence|>"),
)
ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "[SYSTEM_PROMPT]": "system",
    "<<SYS>>": "system",
    "assistant": "assistant",
    "model": "assistant",
    "[/INST]": "assistant",
}
"""All other roles become user: user, human, tool, [INST], <</SYS>>."""

MAX_TURNS = 4096
"""Four megabytes of text can hold a quarter of a million headers, each of which would become a message."""


@dataclass(frozen=True, slots=True)
class _Format:
    """A family of chat templates."""

    header: re.Pattern[str]
    """Begins a turn; its group `role` names the speaker. At the start of the text the role alone is enough: truncation
    on the left may have removed the token before it."""
    needs: re.Pattern[str] | None = None
    """Must match too, if headers alone could be ordinary text."""


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
    # DeepSeek V2 and earlier: plain words, so they count only beside this family's tokens
    _Format(
        re.compile(rf"(?:\A|\n\n|(?<={_BAR}>))(?P<role>User|Assistant):"),
        needs=re.compile(rf"{_DEEPSEEK_BEGIN}|{_DEEPSEEK_END}|\n\nAssistant:\Z"),
    ),
)
_BEGIN = re.compile(rf"{_DEEPSEEK_BEGIN}|<s>")
_END_OF_TURN = re.compile(rf"(?:{_DEEPSEEK_END}|</s>)\s{{0,2}}\Z")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a templated text."""

    role: Role
    text: str
    start: int
    """Index of its first character."""


def turns_of(text: str) -> list[Turn]:
    """The turns of a templated text. Its format is that of the first header, because later headers may be text that the
    policy or the user wrote. Empty for text in no known format, or with more than MAX_TURNS turns."""
    candidates = [
        (first.start(), rank, form)
        for rank, form in enumerate(_FORMATS)
        if (form.needs is None or form.needs.search(text)) and (first := form.header.search(text))
    ]
    if not candidates:
        return []
    headers = list(islice(min(candidates, key=lambda one: one[:2])[2].header.finditer(text), MAX_TURNS + 1))
    if len(headers) > MAX_TURNS:
        return []
    ends = [header.start() for header in headers[1:]] + [len(text)]
    turns = [
        Turn(_role(header), text[header.end() : end], header.end()) for header, end in zip(headers, ends, strict=True)
    ]
    before = text[: headers[0].start()]
    if stripped(before):
        turns.insert(0, Turn(_role_before(headers[0], before), before, 0))
    return turns


def _role(header: re.Match[str]) -> Role:
    name = header["role"] or ""
    return ROLES.get(name, ROLES.get(name.lower(), "user"))


def _role_before(header: re.Match[str], before: str) -> Role:
    """The role of the text before the first header: system prompts have no header in some formats, and truncation on
    the left removes any header."""
    if header["role"] == "<</SYS>>" or (_BEGIN.match(before) and not _END_OF_TURN.search(before)):
        return "system"
    return "user" if _role(header) == "assistant" else "assistant"


def stripped(text: str) -> str:
    """Text without special tokens and white space at its ends."""
    start, end = content_span(text)
    return text[start:end]


def content_span(text: str) -> tuple[int, int]:
    """Start and end of the text between white space and special tokens at its ends."""
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
