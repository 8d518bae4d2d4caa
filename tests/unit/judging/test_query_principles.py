"""Which requests share the principles of their query."""

from dataclasses import replace
from typing import Any

import pytest

from grm_server.grm.types import Message, Task
from grm_server.judging.query_principles import same_principles
from grm_server.pipeline.types import ScoreRequest

TASK = Task((Message("user", "Why?"),), ("A.", "B."))
REQUEST = ScoreRequest(TASK, k=4, seed=0, temperature=0.5, max_critique_tokens=96, deadline_s=60.0)


@pytest.mark.parametrize(
    "change",
    [
        {"task": replace(TASK, query=(Message("system", "Why?"),))},
        {"task": replace(TASK, reference="Because.")},
        {"task": replace(TASK, reference="")},
        {"task": replace(TASK, query=(Message("user", "Wh"), Message("user", "y?")))},
        {"max_critique_tokens": 98},
        {"temperature": 0.6},
        {"tenant": "another"},
    ],
)
def test_everything_they_are_drawn_from_counts(change: dict[str, Any]) -> None:
    assert same_principles(replace(REQUEST, **change)) != same_principles(REQUEST)


def test_responses_and_judging_options_do_not_count() -> None:
    other = replace(
        REQUEST, task=replace(TASK, responses=("C.",), hint=0), k=8, seed=9, deadline_s=1.0, seed_is_free=True
    )
    assert same_principles(other) == same_principles(REQUEST)
