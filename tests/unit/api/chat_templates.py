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


def marked(user: str, assistant: str, system: str, end: str, opened: str = "", begin: str = "") -> Write:
    """A template of one header for each role and one token that ends a turn; `opened` ends the generation prompt."""
    headers = {"user": user, "assistant": assistant, "system": system}

    def write(turns: Turns) -> str:
        return begin + "".join(f"{headers[role]}{text}{end}" for role, text in turns) + assistant + opened

    return write


PUBLIC = {
    "Phi-4": marked(
        "<|im_start|>user<|im_sep|>", "<|im_start|>assistant<|im_sep|>", "<|im_start|>system<|im_sep|>", "<|im_end|>"
    ),
    "Kimi K2": marked(
        "<|im_user|>user<|im_middle|>",
        "<|im_assistant|>assistant<|im_middle|>",
        "<|im_system|>system<|im_middle|>",
        "<|im_end|>",
    ),
    "harmony": marked(
        "<|start|>user<|message|>",
        "<|start|>assistant<|channel|>final<|message|>",
        "<|start|>developer<|message|>",
        "<|end|>",
    ),
    "Command R": marked(
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        begin="<BOS_TOKEN>",
    ),
    "Granite": marked(
        "<|start_of_role|>user<|end_of_role|>",
        "<|start_of_role|>assistant<|end_of_role|>",
        "<|start_of_role|>system<|end_of_role|>",
        "<|end_of_text|>\n",
    ),
    "EXAONE": marked("[|user|]", "[|assistant|]", "[|system|]", "[|endofturn|]\n"),
    "Gemma 4": marked(
        "<|turn>user\n", "<|turn>model\n", "<|turn>system\n", "<turn|>\n", "<|channel>thought\n<channel|>", "<bos>"
    ),
    "Seed-OSS": marked("<seed:bos>user\n", "<seed:bos>assistant\n", "<seed:bos>system\n", "<seed:eos>"),
    "MiniMax M2": marked("]~b]user\n", "]~b]ai\n", "]~b]system\n", "[e~[\n", "<think>\n", "]~!b["),
    "Nemotron Nano 2": marked(
        "<SPECIAL_11>User\n", "<SPECIAL_11>Assistant\n", "<SPECIAL_10>System\n", "\n<SPECIAL_12>\n", "<think>\n\n"
    ),
    "Nemotron 4": marked("<extra_id_1>User\n", "<extra_id_1>Assistant\n", "<extra_id_0>System\n", "\n"),
    "GLM": marked("<|user|>\n", "<|assistant|>\n", "<|system|>\n", "", begin="[gMASK]<sop>"),
    "Starling": marked("GPT4 Correct User: ", "GPT4 Correct Assistant: ", "GPT4 Correct System: ", "<|end_of_turn|>"),
    "Hunyuan": marked(
        "<｜hy_User｜>", "<｜hy_Assistant｜>", "", "<｜hy_place▁holder▁no▁2｜>", begin="<｜hy_begin▁of▁sentence｜>"
    ),
    "Baichuan": marked("<reserved_106>", "<reserved_107>", "", ""),
    "Vicuna": marked("USER: ", "ASSISTANT: ", "", "</s>"),
    "Alpaca": marked("### Instruction:\n", "### Response:\n", "", "\n\n"),
}
"""Templates in the forms that their models' cards publish, written by hand."""
