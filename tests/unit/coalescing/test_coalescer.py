"""Which requests one judgement answers."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest

from grm_server.coalescing.coalescer import answer_key
from grm_server.grm.stopping import Decided, Fixed, Precision, Strict
from grm_server.grm.types import Message, Task
from grm_server.pipeline.types import ScoreRequest

TASK = Task((Message("user", "Why?"),), ("A.", "B."))
REQUEST = ScoreRequest(TASK, k=4, seed=0, temperature=0.5, max_critique_tokens=96, deadline_s=60.0)

# A new field needs a line here, with another value that changes the answer.
OTHERS: dict[type, dict[str, Any]] = {
    ScoreRequest: {
        "task": replace(TASK, hint=1),
        "k": 5,
        "seed": 1,
        "temperature": 0.6,
        "max_critique_tokens": 97,
        "format": "plain",
        "thinking": "off",
        "max_thought_tokens": 16,
        "top_p": 0.9,
        "top_k": 20,
        "repetition_penalty": 1.1,
        "min_votes": 2,
        "stop": Strict(0.05),
        "aggregate": "vote",
        "k_meta": 2,
        "fallback_to_plain_vote": True,
        "reading": "expected",
        "list_size": 9,
        "min_shown": 2,
        "max_shown": 2,
        "winners": True,
        "speculate_below": 1,
        "principles_from": "query",
        "tenant": "another",
        "seed_is_free": True,
    },
    Task: {
        "query": (Message("user", "Why not?"),),
        "responses": ("B.", "A."),
        "reference": "",
        "principles": "",
        "hint": 0,
    },
    Message: {"role": "system", "content": "Why? "},
    Fixed: {},
    Decided: {"gamma": 0.06, "target": "ranking"},
    Strict: {"delta": 0.06},
    Precision: {"se": 0.5},
}
TIMING: dict[str, Any] = {"deadline_s": 1.0, "priority": "high", "wait_until_deadline": True}
STARTS: dict[type, Any] = {
    ScoreRequest: REQUEST,
    Task: TASK,
    Message: TASK.query[0],
    Fixed: Fixed(),
    Decided: Decided(0.05),
    Strict: Strict(0.05),
    Precision: Precision(0.4),
}


def within(part: Any) -> ScoreRequest:
    """The request that has this part."""
    match part:
        case ScoreRequest():
            return part
        case Task():
            return replace(REQUEST, task=part)
        case Message():
            return replace(REQUEST, task=replace(TASK, query=(part,)))
        case _:
            return replace(REQUEST, stop=part)


@pytest.mark.parametrize("kind", OTHERS)
def test_every_field_counts(kind: type[Any]) -> None:
    names = {field.name for field in fields(kind)} - set(TIMING)
    assert names == set(OTHERS[kind])
    keys = [answer_key(within(STARTS[kind]), "")]
    keys += [answer_key(within(replace(STARTS[kind], **{name: OTHERS[kind][name]})), "") for name in names]
    assert len(set(keys)) == 1 + len(names)


def test_all_values_compare_by_content() -> None:
    """An array is not hashable, and an object without `__eq__` would only equal itself."""

    def plain(value: Any) -> bool:
        if is_dataclass(value):
            return all(field.compare and plain(getattr(value, field.name)) for field in fields(value))
        return all(map(plain, value)) if isinstance(value, tuple) else isinstance(value, str | int | float | None)

    for start in STARTS.values():
        assert plain(start)
        assert hash(start) == hash(replace(start))
        for other in OTHERS[type(start)].values():
            assert plain(other)


def test_the_clients_tag_counts() -> None:
    assert answer_key(REQUEST, "math") != answer_key(REQUEST, "")


@pytest.mark.parametrize("name", TIMING)
def test_timing_does_not_count(name: str) -> None:
    assert answer_key(replace(REQUEST, **{name: TIMING[name]}), "") == answer_key(REQUEST, "")


def test_a_seed_that_the_server_chose_does_not_count() -> None:
    one, other = (replace(REQUEST, seed=seed, seed_is_free=True) for seed in (1, 2))
    assert answer_key(one, "") == answer_key(other, "")
    assert answer_key(replace(REQUEST, seed=0), "") != answer_key(one, "")


def test_responses_are_kept_apart() -> None:
    tasks = [replace(TASK, responses=("a', 'b",)), replace(TASK, responses=("a", "b"))]
    assert len({answer_key(replace(REQUEST, task=task), "") for task in tasks}) == 2
