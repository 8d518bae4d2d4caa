"""Lost and wrong answers are detected."""

from typing import Any

import httpx
import pytest

from benchmarks.robustness.checked_load import problem_of

REQUEST = {"responses": ["A", "B"], "k": 2}
RIGHT: dict[str, Any] = {
    "rewards": [3.5, 8],
    "vote_sums": [7, 16],
    "k_used": 2,
    "k_valid": 2,
    "samples": [{"order": [0, 1], "scores": [3, 7]}, {"order": [1, 0], "scores": [4, 9]}],
}


def test_a_right_answer() -> None:
    assert problem_of(REQUEST, httpx.Response(200, json=RIGHT)) is None


@pytest.mark.parametrize(
    "change",
    [
        {"rewards": [3.5]},
        {"rewards": [3.5, 11]},
        {"vote_sums": [7, 17]},
        {"k_used": 1},
        {"k_valid": 1},
        {"samples": RIGHT["samples"][:1]},
        {"samples": [RIGHT["samples"][0], {"order": [1, 1], "scores": [4, 9]}]},
        {"samples": [RIGHT["samples"][0], {"order": [1, 0], "scores": [0, 9]}]},
    ],
)
def test_wrong_answers(change: dict[str, Any]) -> None:
    assert problem_of(REQUEST, httpx.Response(200, json=RIGHT | change))


def test_errors() -> None:
    response = httpx.Response(503, json={"error": {"code": "engine_dead"}})
    assert problem_of(REQUEST, response) == "503 engine_dead"
