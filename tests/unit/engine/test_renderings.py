"""Whole prompts, and what we write in the judge's turn, against what the judges' authors send: their call of
`apply_chat_template`, with the published tokenizer and chat template. docs/results/formats-prompts.md shows the texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from grm_server.app.formats import judge_format
from grm_server.engine.protocol import TokenizedScript
from grm_server.engine.script_tokens import tokenized
from grm_server.engine.tokens import ChatEncoder
from grm_server.grm.prompt_template import sanitized
from grm_server.grm.prompts import Budgets, Thinking, write_script
from grm_server.grm.script import plain
from grm_server.grm.types import Message, Task
from tests.checkpoints import write_tokenizer

pytest.importorskip("transformers")

PAGE = Path(__file__).parents[3] / "docs" / "results" / "formats-prompts.md"
NO_ARGS: dict[str, Any] = {}
FINAL = "<|start|>assistant<|channel|>final<|message|>"


@dataclass(frozen=True)
class Case:
    """A judge, and what its authors' prompt differs in from ours."""

    model: str
    format: str
    thinking: Thinking
    args: dict[str, Any]
    """The authors' arguments of apply_chat_template, besides add_generation_prompt."""
    opening: str
    """What we write after the authors' prompt. The model would write it if it thinks, or would not think without it."""
    closed: str
    """What we write after a thought that the model closed; without a thought, before the critique."""
    cut: str
    """What we write after a thought that reached its budget."""
    skipped: str = ""
    """What we write if the model decided not to think."""

    def __str__(self) -> str:
        return f"{self.model}, {self.format}, thinking {self.thinking}"


CUT = "\n</think>\n\n"
CASES = [
    Case("qwen3", "thinking", "on", {"enable_thinking": True}, "<think>\n", "</think>", CUT),
    Case("qwen3", "thinking", "auto", {"enable_thinking": True}, "", "</think>", CUT),
    Case("qwen3", "thinking", "off", {"enable_thinking": False}, "", "", ""),
    Case("qwen3", "r3", "on", {"enable_thinking": True}, "<think>", "</think>", "</think>"),
    Case("qwen3", "r3", "auto", {"enable_thinking": True}, "", "</think>", "</think>"),
    Case("qwen3", "r3", "off", {"enable_thinking": False}, "", "", ""),
    Case("r1-distill-qwen", "thinking", "on", NO_ARGS, "", "</think>", CUT),
    Case("r1-distill-qwen", "thinking", "auto", NO_ARGS, "", "</think>", CUT),
    Case("r1-distill-qwen", "thinking", "off", NO_ARGS, "\n</think>\n\n", "", ""),
    Case("r1-distill-qwen", "rm-r1-distilled", "on", NO_ARGS, "", "</think>", CUT),
    Case("r1-distill-qwen", "rrm", "on", NO_ARGS, "", "</think>", CUT),
    Case(
        "gpt-oss",
        "thinking-harmony",
        "on",
        NO_ARGS,
        "<|channel|>analysis<|message|>",
        "<|end|>" + FINAL,
        "<|end|>" + FINAL,
    ),
    Case("gpt-oss", "thinking-harmony", "auto", NO_ARGS, "", "<|end|>" + FINAL, "<|end|>" + FINAL),
    Case("gpt-oss", "thinking-harmony", "off", NO_ARGS, "<|channel|>final<|message|>", "", ""),
]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    @cache
    def load(model: str) -> Any:
        folder = tmp_path_factory.mktemp(model)
        write_tokenizer(model, folder)
        return AutoTokenizer.from_pretrained(folder)

    return load


def prepare(tokenizer: Any, case: Case) -> tuple[TokenizedScript, list[dict[str, str]]]:
    """Our tokens, and the messages that the authors' code would render."""
    form = judge_format(case.format)
    n = form.file.shows.max or 2
    task = sanitized(Task((Message("user", "What is 2 + 2?"),), ("4", "5")[:n]), form.structure)
    script = write_script(form, task, tuple(range(n)), Budgets(64, 64), thinking=case.thinking)
    messages = [{"role": turn.role, "content": plain(turn.content)} for turn in script.turns]
    return tokenized(ChatEncoder(tokenizer), script, 4096), messages


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_prompt_is_the_one_of_the_authors_call(tokenizers: Any, case: Case) -> None:
    tokenizer = tokenizers(case.model)
    prepared, messages = prepare(tokenizer, case)
    theirs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, **case.args)["input_ids"]
    assert list(prepared.prompt) == theirs
    assert tokenizer.decode(prepared.leads[0].ids) == case.opening
    if prepared.script.segments[0].name == "thought":
        after = prepared.leads[1]
        assert tokenizer.decode(after.ids) == case.closed
        assert tokenizer.decode(after.if_unmarked) == case.cut
        assert tokenizer.decode(after.if_skipped) == case.skipped
        # Every mark is the model's own token, not its letters.
        for mark in ("<think>", "</think>", "<|channel|>", "<|end|>", "<|start|>", "<|message|>"):
            leads = (*prepared.leads[0].ids, *after.ids, *after.if_unmarked)
            written = case.opening + case.closed + case.cut
            assert leads.count(tokenizer.convert_tokens_to_ids(mark)) == written.count(mark)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_page_shows_the_prompt(tokenizers: Any, case: Case) -> None:
    assert section(tokenizers(case.model), case) in PAGE.read_text()


def section(tokenizer: Any, case: Case) -> str:
    """The part of the page about a case: the end of the prompt, what we add, and how the turn goes on."""
    prepared, _ = prepare(tokenizer, case)
    args = ", ".join(f"{name}={value}" for name, value in case.args.items())
    rows = [
        (f"the authors' prompt ends in ({args or 'no arguments'})", tokenizer.decode(list(prepared.prompt))[-48:]),
        ("then we write", case.opening),
    ]
    if prepared.script.segments[0].name == "thought":
        rows += [("after a thought that the judge closed", case.closed), ("after one cut at its budget", case.cut)]
    lines = [f"| {what} | {in_table(text)} |" for what, text in rows]
    return "\n".join([f"### {case}", "", "| | text |", "|---|---|", *lines])


def in_table(text: str) -> str:
    return f"`{text!r}`".replace("`'", "`").replace("'`", "`").replace("|", "\\|") if text else "nothing"
