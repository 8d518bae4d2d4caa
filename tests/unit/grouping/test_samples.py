"""The most samples that the single responses of one POST may draw."""

from typing import Any

import pytest

from grm_server.grouping.types import PendingResponse, samples_of


def pending(response: str, n: int | None, *, key: str = "P", max_responses: int = 64) -> PendingResponse:
    nothing: Any = None
    return PendingResponse("a", key, response, 10, nothing, nothing, 4, 8, "", n, max_responses, 1.0, 1.0, None)


@pytest.mark.parametrize(
    ("responses", "n", "max_responses", "samples"),
    [
        ("a", None, 64, 4),
        ("abcdefgh", None, 64, 4),
        ("abcdefghi", None, 64, 8),
        ("abcd", 1, 64, 16),
        ("abcd", 2, 64, 8),
        ("abcde", 2, 64, 12),
        ("aaaa", 1, 64, 4),  # duplicates are judged once
        ("aaab", 2, 64, 8),
        ("abcdef", None, 3, 8),
        ("", None, 64, 0),
    ],
)
def test_k_for_each_block_of_each_group(responses: str, n: int | None, max_responses: int, samples: int) -> None:
    assert samples_of([pending(one, n, max_responses=max_responses) for one in responses]) == samples


def test_prompts_count_apart() -> None:
    assert samples_of([pending("a", None, key=key) for key in "PQR"]) == 12
