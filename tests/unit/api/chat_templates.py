"""Chat templates of models, and conversations for them."""

from collections.abc import Callable

from hypothesis import strategies as st

Turns = list[tuple[str, str]]
Write = Callable[[Turns], str]
"""A chat template as in the model's tokenizer, with the generation prompt."""


def chatml(turns: Turns) -> str:
    return "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"


def qwen3_without_thinking(turns: Turns) -> str:
    return chatml(turns) + "<think>\n\n</think>\n\n"


def llama3(turns: Turns) -> str:
    templated = [f"<|start_header_id|>{role}<|end_header_id|>\n\n{text}<|eot_id|>" for role, text in turns]
    return "<|begin_of_text|>" + "".join(templated) + "<|start_header_id|>assistant<|end_header_id|>\n\n"


def gemma(turns: Turns) -> str:
    names = {"assistant": "model"}
    templated = [f"<start_of_turn>{names.get(role, role)}\n{text}<end_of_turn>\n" for role, text in turns]
    return "<bos>" + "".join(templated) + "<start_of_turn>model\n"


def llama2(turns: Turns) -> str:
    templated, system = "", ""
    for role, text in turns:
        if role == "system":
            system = f"<<SYS>>\n{text}\n<</SYS>>\n\n"
        elif role == "user":
            templated, system = f"{templated}<s>[INST] {system}{text} [/INST]", ""
        else:
            templated += f" {text} </s>"
    return templated


def mistral(turns: Turns) -> str:
    forms = {"system": "[SYSTEM_PROMPT]{}[/SYSTEM_PROMPT]", "user": "[INST]{}[/INST]", "assistant": "{}</s>"}
    return "<s>" + "".join(forms[role].format(text) for role, text in turns)


def deepseek2(turns: Turns) -> str:
    forms = {"system": "{}\n\n", "user": "User: {}\n\n", "assistant": "Assistant: {}<｜end▁of▁sentence｜>"}
    return "<｜begin▁of▁sentence｜>" + "".join(forms[role].format(text) for role, text in turns) + "Assistant:"


def deepseek3(turns: Turns) -> str:
    forms = {"system": "{}", "user": "<｜User｜>{}", "assistant": "<｜Assistant｜>{}<｜end▁of▁sentence｜>"}
    return "<｜begin▁of▁sentence｜>" + "".join(forms[role].format(text) for role, text in turns) + "<｜Assistant｜>"


def deepseek_r1(turns: Turns) -> str:
    return deepseek3(turns) + "<think>\n"


def zephyr(turns: Turns) -> str:
    return "".join(f"<|{role}|>\n{text}</s>\n" for role, text in turns) + "<|assistant|>\n"


FORMATS = [
    *(chatml, qwen3_without_thinking, llama3, gemma, llama2, mistral, deepseek2, deepseek3, deepseek_r1, zephyr),
]

turn_text = st.text(st.characters(codec="utf-8", exclude_characters="<>[]|｜:", exclude_categories=["Cc"]), min_size=1)
turn_text = turn_text.map(str.strip).filter(bool)


@st.composite
def conversations(draw: st.DrawFn) -> Turns:
    """system? (user assistant)* user"""
    turns = [("system", draw(turn_text))] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(0, 2))):
        turns += [("user", draw(turn_text)), ("assistant", draw(turn_text))]
    return [*turns, ("user", draw(turn_text))]
