"""Principles drawn from the query alone: the prompt, and which part of the answer is used."""

from dataclasses import replace

import pytest

from grm_server.app.formats import judge_format, principles_template
from grm_server.grm.parse import whole_principles
from grm_server.grm.prompt_template import PromptTemplate, sanitized
from grm_server.grm.prompts import Budgets, write_principles_script, write_script
from grm_server.grm.script import Sample, Script
from grm_server.grm.types import Message, Task
from tests.hostile import HOSTILE

FORM = judge_format()
TASK = Task((Message("user", "Why is it so?"),), ("SECRET A.", "SECRET B."), "Because.", "SECRET C.", hint=0)


def script_of(task: Task) -> Script:
    template = principles_template()
    return write_principles_script(FORM, template, sanitized(task, FORM.structure | template.structure), 48)


def test_the_prompt_shows_the_query_and_the_reference_but_no_response() -> None:
    script = script_of(TASK)
    assert "Why is it so?" in script.prompt
    assert "Because." in script.prompt
    assert "SECRET" not in script.prompt
    assert "None" not in script_of(Task(TASK.query, ())).prompt


def test_principles_are_written_in_the_format_of_a_sample() -> None:
    (alone,) = script_of(TASK).segments
    task = sanitized(Task(TASK.query, TASK.responses), FORM.structure)
    first, *_ = write_script(FORM, task, (0, 1), Budgets(96)).segments
    assert replace(alone, lead_if_unmarked=alone.lead, lead_if_skipped=alone.lead) == first


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_adds_no_section(text: str) -> None:
    plain = script_of(Task((Message("user", "x"),) * 2, (), "x")).prompt
    task = Task((Message("user", text), Message("user", text)), (), text or "x")
    shown = script_of(task).prompt
    for mark in ("####", "[The Begin of", "[The End of", "Specific Criteria:"):
        assert shown.count(mark) == plain.count(mark)


def test_a_template_with_a_syntax_error_is_refused() -> None:
    with pytest.raises(ValueError, match="template:"):
        PromptTemplate("{% if %}")


@pytest.mark.parametrize(
    ("written", "used"),
    [
        (" Accuracy (weight 2), clarity (weight 1).", "Accuracy (weight 2), clarity (weight 1)."),
        ("Accuracy", "Accuracy"),
        ("  \n", None),
        ("", None),
    ],
)
def test_a_finished_text_is_used_unchanged(written: str, used: str | None) -> None:
    assert whole_principles(Sample({"principles": written})) == used


@pytest.mark.parametrize(
    ("written", "used"),
    [
        (" Be right. Be brief. Be ki", "Be right. Be brief."),
        ("1. Be right. 2. Be brief. 3. Be", "1. Be right. 2. Be brief."),
        ("1. Be right. 2. Be brief. 3.", "1. Be right. 2. Be brief."),
        ("- accuracy\n- clarity\n- leng", "- accuracy\n- clarity"),
        ("accuracy, clarity, leng", "accuracy, clarity"),
        ("accuracy (weight 0.5) clarity (weight 0.", "accuracy (weight 0.5)"),
        ("Be right. Be brief.", "Be right. Be brief."),
        ("the the the the the", None),
        ("", None),
    ],
)
def test_of_a_cut_text_only_whole_principles_are_used(written: str, used: str | None) -> None:
    assert whole_principles(Sample({"principles": written}, cut=("principles",))) == used
