"""The chat templates of public models, thoughts in them, and templates that are unknown."""

import json
from pathlib import Path
from types import ModuleType

import pytest

from grm_client import thoughts as client
from grm_server.api import thoughts as server
from grm_server.api.protocols.chat_formats import unknown_form
from grm_server.api.protocols.untemplate import response_after, split_last_turn, untemplate
from grm_server.api.thoughts import opens_thought, without_thoughts
from grm_server.grm.types import Message
from tests.unit.api.chat_templates import PUBLIC

DATA = Path(__file__).parents[2] / "turns"
CHAT = [
    ("user", "Why is the sky blue?"),
    ("assistant", "Rayleigh scattering."),
    ("user", "And at night, then?"),
]


@pytest.mark.parametrize("name", PUBLIC)
def test_prompt_and_response_are_parted(name: str) -> None:
    prompt = PUBLIC[name](CHAT)
    expected = tuple(Message(role, text) for role, text in CHAT)  # type: ignore[arg-type]
    assert untemplate(prompt) == expected
    whole = PUBLIC[name]([*CHAT, ("assistant", "It is dark.")])
    ends = ("<|endoftext|>", "</s>", "")
    assert [response_after(prompt, f"{prompt}It is dark.{end}") for end in ends] == ["It is dark."] * 3
    generated = whole[len(PUBLIC[name](CHAT)) :]
    assert "It is dark." in whole, generated
    separated = split_last_turn(prompt + "It is dark.</s>")
    assert separated is not None
    assert separated[0] == expected
    assert without_thoughts(separated[1], opened=opens_thought(prompt)).endswith("It is dark.") or opens_thought(prompt)
    assert not unknown_form(prompt)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name not in ("Hunyuan", "Baichuan", "Vicuna", "Alpaca")])
def test_a_system_prompt_is_a_turn(name: str) -> None:
    chat = [("system", "Be brief."), *CHAT]
    assert [(turn.role, turn.content) for turn in untemplate(PUBLIC[name](chat))] == chat


@pytest.mark.parametrize("name", ["Hunyuan", "Baichuan", "Vicuna", "Alpaca"])
def test_a_preamble_is_the_system_prompt(name: str) -> None:
    chat = [("system", "Be brief.\n\n"), *CHAT]
    assert untemplate(PUBLIC[name](chat))[0].content.startswith("Be brief.")
    if name != "Hunyuan":
        assert untemplate(PUBLIC[name](chat).replace("Be brief.\n\n</s>", "Be brief.\n\n"))[0].role == "system"


def test_harmony_channels() -> None:
    prompt = "<|start|>user<|message|>Capital of France?<|end|><|start|>assistant"
    answer = (
        "<|channel|>analysis<|message|>I flatter.<|end|><|start|>assistant<|channel|>final<|message|>Paris.<|return|>"
    )
    for response in (response_after(prompt, prompt + answer), (split_last_turn(prompt + answer) or ("", ""))[1]):
        assert without_thoughts(response) == "Paris."
        assert "I flatter." in response
    assert untemplate(prompt) == (Message("user", "Capital of France?"),)
    assert [m.content for m in untemplate(prompt + answer)] == ["Capital of France?", "Paris."]


@pytest.mark.parametrize(("text", "opened", "shown"), json.loads((DATA / "thoughts.json").read_text()))
def test_thoughts_are_dropped_by_the_same_table_on_both_sides(text: str, opened: bool, shown: str) -> None:
    assert without_thoughts(text, opened=opened) == client.without_thoughts(text, opened=opened) == shown


@pytest.mark.parametrize("side", [server, client])
def test_only_so_many_thoughts_are_dropped(side: ModuleType) -> None:
    """Each costs a search, and four megabytes can hold half a million tags."""
    text = "<think>a</think>" * 256
    assert side.without_thoughts(text + "Paris.") == "Paris."
    assert side.without_thoughts(text + "<think>b</think>Paris.") == "<think>b</think>Paris."


@pytest.mark.parametrize(
    "opening", ["<think>\n", "<seed:think>", "[THINK]", "<|START_THINKING|>", "<|channel>thought\n"]
)
def test_a_prompt_that_opens_a_thought(opening: str) -> None:
    assert opens_thought("assistant\n" + opening)
    assert client.opens_thought("assistant\n" + opening)
    assert not opens_thought(f"assistant\n{opening}no")
    assert not client.opens_thought("")


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("<|bot|>Hi<|stop|>", "<|bot|>"),
        ("[|x_y|]Hi", "[|x_y|]"),
        ("Plain | text <b>", ""),
        ("<|im_start|>user\nHi", ""),
    ],
)
def test_tokens_of_unknown_templates_are_named(text: str, form: str) -> None:
    assert unknown_form(text) == form


RENDERED = json.loads((DATA / "rendered.json").read_text())["prompts"]


@pytest.mark.parametrize("name", RENDERED)
def test_prompts_that_the_templates_of_public_tokenizers_rendered(name: str) -> None:
    messages = untemplate(RENDERED[name])
    texts = [message.content for message in messages]
    assert texts[-3:] == [
        "\n\n".join(["Be brief.", CHAT[0][1]]) if "gemma3" in name else CHAT[0][1],
        *[t for _, t in CHAT[1:]],
    ]
    assert [message.role for message in messages[-3:]] == ["user", "assistant", "user"]
    assert ("gemma3" in name) or messages[0] == Message("system", "Be brief.")
    assert response_after(RENDERED[name], RENDERED[name] + "It is dark.<|eot_id|>") == "It is dark."
