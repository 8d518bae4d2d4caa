"""What a judge that grades or compares refuses, with what to do instead."""

import pytest

from grm_server.api.from_wire import _check_together
from grm_server.errors import InvalidRequest
from grm_server.grm.stopping import Strict
from grm_server.grm.types import Aggregate, Message, Task
from grm_server.pipeline.types import ScoreRequest


def request(n: int, max_shown: int, aggregate: Aggregate = "mean", *, strict: bool = False) -> ScoreRequest:
    asked = ScoreRequest(Task((Message("user", "Why?"),), ("A.",) * n), 4, 5, 0.5, 96, 60.0)
    stop = Strict(0.05) if strict else asked.stop
    return ScoreRequest(
        asked.task, 4, 5, 0.5, 96, 60.0, stop=stop, aggregate=aggregate, max_shown=max_shown, winners=max_shown == 2
    )


@pytest.mark.parametrize(
    ("refused", "param", "text"),
    [
        (request(3, 2, strict=True), "stop", "this judge reads at most 2 of the 3: use rule decided"),
        (request(2, 1, strict=True), "stop", "this judge reads at most 1 of the 2: use rule decided"),
        (request(2, 1, "vote"), "aggregate", "this judge scores one response in each: use `mean`"),
        (request(3, 2, "winsorised"), "aggregate", "this judge names winners: use `mean`"),
    ],
)
def test_what_does_not_fit_the_judge_is_refused(refused: ScoreRequest, param: str, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text) as error:
        _check_together(refused)
    assert error.value.param == param


def test_two_responses_are_a_list_to_a_comparing_judge() -> None:
    _check_together(request(2, 2, strict=True))
    _check_together(request(3, 2, "vote"))
    _check_together(request(3, 1))
