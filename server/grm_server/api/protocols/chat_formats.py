"""The chat templates of policy models: turn headers, roles and special tokens. Pure.

Every pattern is an alternation of short literals, so hostile text costs linear time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import islice

from grm_server.grm.types import Role

# Tokens at the ends of a text that are never a turn's content.
_SPECIAL = (
    *("<s>", "</s>", "<bos>", "<eos>", "<pad>", "[PAD]", "<unk>", "<|endoftext|>", "<|pad|>", "<|vision_pad|>"),
    *("<|im_end|>", "<|end|>", "<end_of_turn>", "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|eom_id|>"),
    *("<|eot|>", "<|finetune_right_pad_id|>", "[/SYSTEM_PROMPT]"),
    *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"),
    *("<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>", "<EOS_TOKEN>", "<PAD>", "<|END_RESPONSE|>", "<|START_RESPONSE|>"),
    *("<|return|>", "<|call|>", "<|startoftext|>", "<turn|>", "<|think|>", "<seed:bos>", "<seed:eos>", "<seed:pad>"),
    *(
        "[|endofturn|]",
        "[BOS]",
        "[EOS]",
        "<|end_of_turn|>",
        "[e~[",
        "]~!b[",
        "<SPECIAL_12>",
        "<SPECIAL_11>",
        "<SPECIAL_10>",
    ),
    *("<|hy_eos|>", "<|eos|>", "<|startoftext|>", "<|extra_0|>", "<|extra_4|>", "<|EOT|>", "[gMASK]", "<sop>"),
    *(
        "<｜hy_begin▁of▁sentence｜>",
        "<｜hy_end▁of▁sentence｜>",
        "<｜hy_place▁holder▁no▁2｜>",
        "<｜hy_place▁holder▁no▁3｜>",
        "<｜hy_place▁holder▁no▁8｜>",
    ),
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
    "system_token": "system",
    "chatbot": "assistant",
    "chatbot_token": "assistant",
    "ai": "assistant",
    "response": "assistant",
    "extra_0": "assistant",
    "gpt4 correct system": "system",
    "gpt4 correct assistant": "assistant",
    "<reserved_107>": "assistant",
    "<reserved_196>": "assistant",
    "<|extra_0|>": "assistant",
    "<｜hy_assistant｜>": "assistant",
}
"""Lower case; those of tools are in `TOOLS`. All other roles become user: user, human, [INST], <</SYS>>."""
TOOLS = frozenset({"tool", "ipython", "function", "observation", "tool_response"})

MAX_TURNS = 4096
"""Four megabytes of text can hold a quarter of a million headers, each of which would become a message."""


@dataclass(frozen=True, slots=True)
class _Format:
    """A family of chat templates."""

    header: re.Pattern[str]
    """Begins a turn; its group `role` names the speaker. At the start of the text the role alone is enough: truncation
    on the left may have removed the token before it."""
    needs: tuple[re.Pattern[str], ...] = ()
    """Must match too, if headers alone could be ordinary text."""
    preamble: bool = False
    """Text before the first header is a system prompt."""


_BAR = "[|｜]"
_DEEPSEEK_BEGIN = rf"<{_BAR}begin[▁_ ]of[▁_ ]sentence{_BAR}>"
_DEEPSEEK_END = rf"<{_BAR}end[▁_ ]of[▁_ ]sentence{_BAR}>"
_LLAMA_ROLE = "(?P<role>system|user|assistant|tool|ipython|)"
_FORMATS = (
    # ChatML, Qwen; Phi-4 with <|im_sep|>
    _Format(
        re.compile(
            r"(?:<\|im_start\|>|\A)(?P<role>system|developer|user|assistant|tool)(?:\n|<\|im_sep\|>)|<\|im_start\|>"
        ),
        needs=(re.compile(r"<\|im_(?:start|end)\|>"),),
    ),
    # Kimi K2
    _Format(re.compile(r"<\|im_(?P<role>system|user|assistant)\|>(?:[\w .-]{0,64}<\|im_middle\|>)?")),
    # GPT-OSS, harmony: of the assistant's channels, only the final one is its response
    _Format(
        re.compile(
            r"(?:<\|start\|>|\A)(?P<role>system|developer|user|assistant|[\w.-]{1,64} to=assistant)"
            r"(?P<channel>[^<\n]{0,64}(?:<\|channel\|>(?:analysis|commentary|final)[^<\n]{0,64})?"
            r"(?:<\|constrain\|>\w{1,16})?)(?:<\|message\|>|\Z)"
        ),
        needs=(re.compile(r"<\|(?:message|start)\|>"),),
    ),
    # Command R
    _Format(re.compile(r"<\|START_OF_TURN_TOKEN\|><\|(?P<role>SYSTEM|USER|CHATBOT)_TOKEN\|>(?:<\|START_RESPONSE\|>)?")),
    # Granite
    _Format(re.compile(r"<\|start_of_role\|>(?P<role>[a-z_]{1,32})(?:\s?\{[^<\n]{0,200}\})?<\|end_of_role\|>")),
    # EXAONE
    _Format(re.compile(r"\[\|(?P<role>system|user|assistant|tool)\|\]")),
    # Gemma 4
    _Format(re.compile(r"<\|turn>(?P<role>system|user|model|tool)\n(?:<\|channel>thought\n<channel\|>)?")),
    # Seed-OSS
    _Format(re.compile(r"<seed:bos>(?P<role>system|user|assistant|tool)(?:\n|\Z)")),
    # MiniMax M2
    _Format(re.compile(r"\]~b\](?P<role>system|user|ai|tool)(?:\n|\Z)")),
    # MiniMax Text-01
    _Format(re.compile(r"<beginning_of_sentence>(?P<role>system|user|ai|tool)[^\n<]{0,64}\n")),
    # Nemotron Nano 2; Nemotron with <extra_id_0>
    _Format(re.compile(r"<SPECIAL_1[01]>(?P<role>System|User|Assistant|Tool)\n")),
    _Format(re.compile(r"<extra_id_[01]>(?P<role>System|User|Assistant|Tool)\n")),
    # Hunyuan
    _Format(re.compile(r"(?P<role><｜hy_User｜>|<｜hy_Assistant｜>)")),
    # Hunyuan-A13B: the first text is the system's if <|extra_4|> ends it
    _Format(re.compile(r"(?P<role><\|startoftext\|>|<\|extra_[04]\|>)"), needs=(re.compile(r"<\|extra_0\|>"),)),
    # Baichuan
    _Format(re.compile(r"(?P<role><reserved_10[67]>|<reserved_19[56]>)"), preamble=True),
    # Starling, OpenChat
    _Format(
        re.compile(r"(?P<role>GPT4 Correct (?:System|User|Assistant)):"), needs=(re.compile(r"<\|end_of_turn\|>"),)
    ),
    # Alpaca: both headings must be there, at the starts of lines
    _Format(
        re.compile(r"(?:\A|(?<=\n))### (?P<role>Instruction|Input|Response):(?:\n|\Z)"),
        needs=(
            re.compile(r"(?:\A|\n)### Instruction:\n"),
            re.compile(r"\n### Response:\s{0,4}\Z|</s>|<\|EOT\|>|<\|end|Below is an instruction"),
        ),
        preamble=True,
    ),
    # Vicuna
    _Format(
        re.compile(r"(?:\A|(?<=\s)|(?<=</s>))(?P<role>SYSTEM|USER|ASSISTANT):"),
        needs=(
            re.compile(r"(?:\A|\s|>)USER: "),
            re.compile(r"(?:\s|>)ASSISTANT:\s{0,4}\Z|</s>"),
            re.compile(r"(?:\s|>)ASSISTANT:"),
        ),
        preamble=True,
    ),
    # Llama 3
    _Format(re.compile(rf"(?:<\|start_header_id\|>|\A){_LLAMA_ROLE}<\|end_header_id\|>")),
    # Llama 4
    _Format(re.compile(rf"(?:<\|header_start\|>|\A){_LLAMA_ROLE}<\|header_end\|>")),
    # Gemma
    _Format(
        re.compile(r"(?:<start_of_turn>|\A)(?P<role>system|user|model)\n|<start_of_turn>"),
        needs=(re.compile("<(?:start|end)_of_turn>"),),
    ),
    # DeepSeek V2.5, V3, R1
    _Format(re.compile(rf"<{_BAR}(?P<role>User|Assistant){_BAR}>")),
    # Zephyr, Phi, OLMo, GLM and others
    _Format(re.compile(r"<\|(?P<role>system|user|assistant|tool|observation)\|>")),
    # Llama 2, Mistral
    _Format(re.compile(r"(?P<role>\[INST\]|\[/INST\]|\[SYSTEM_PROMPT\]|<<SYS>>|<</SYS>>)")),
    # DeepSeek V2 and earlier: plain words, so they count only beside this family's tokens
    _Format(
        re.compile(rf"(?:\A|\n\n|(?<={_BAR}>))(?P<role>User|Assistant):"),
        needs=(re.compile(rf"{_DEEPSEEK_BEGIN}|{_DEEPSEEK_END}|\n\nAssistant:\Z"),),
    ),
)
_BEGIN = re.compile(rf"{_DEEPSEEK_BEGIN}|<s>|<｜hy_begin▁of▁sentence｜>")
_END_OF_TURN = re.compile(rf"(?:{_DEEPSEEK_END}|</s>)\s{{0,2}}\Z")


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a templated text."""

    role: Role
    text: str
    start: int
    """Index of its first character."""
    thought: bool = False
    """Whether it stands in a channel that users do not see."""


def turns_of(text: str) -> list[Turn]:
    """The turns of a templated text. Its format is that of the first header, because later headers may be text that the
    policy or the user wrote. Empty for text in no known format, or with more than MAX_TURNS turns."""
    candidates = [
        (first.start(), rank, form)
        for rank, form in enumerate(_FORMATS)
        if all(needed.search(text) for needed in form.needs) and (first := form.header.search(text))
    ]
    if not candidates:
        return []
    form = min(candidates, key=lambda one: one[:2])[2]
    headers = list(islice(form.header.finditer(text), MAX_TURNS + 1))
    if len(headers) > MAX_TURNS:
        return []
    ends = [header.start() for header in headers[1:]] + [len(text)]
    turns = [
        Turn(_role(header), text[header.end() : end], header.end(), _is_thought(header))
        for header, end in zip(headers, ends, strict=True)
    ]
    before = text[: headers[0].start()]
    if stripped(before):
        role: Role = "system" if form.preamble else _role_before(headers[0], before)
        turns.insert(0, Turn(role, before, 0))
    elif len(headers) > 1 and headers[0]["role"] == "<|startoftext|>" and headers[1]["role"] == "<|extra_4|>":
        turns[0] = replace(turns[0], role="system")
    return turns


def _role(header: re.Match[str]) -> Role:
    name = header["role"] or ""
    if name.lower() in TOOLS or name.endswith(" to=assistant"):
        return "tool"
    return ROLES.get(name, ROLES.get(name.lower(), "user"))


def _is_thought(header: re.Match[str]) -> bool:
    return "<|channel|>analysis" in (header.groupdict().get("channel") or "")


_TOKEN = re.compile(
    r"<\|[A-Za-z_]{2,32}\|>|<｜[^<>｜\s]{1,32}｜>|\[\|[A-Za-z_]{2,32}\|\]|<\|[a-z_]{2,32}>|<[a-z_]{2,16}_of_turn>"
)


def unknown_form(text: str) -> str:
    """A token of an unknown chat template in a text in which no known one was found; empty if there is none."""
    token = None if turns_of(text) else _TOKEN.search(stripped(text))
    return "" if token is None else token[0]


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
