"""Answers of the server as JSON objects."""

from collections.abc import Callable
from typing import Any

import pytest

Answer = Callable[..., dict[str, Any]]
Sample = Callable[..., dict[str, Any]]


@pytest.fixture
def answer() -> Answer:
    """Builds the JSON object of an answer; keyword arguments replace fields."""

    def build(**fields: Any) -> dict[str, Any]:
        return {
            "id": "rw-1",
            "shared": None,
            "model": "judge",
            "format": "thinking",
            "rewards": [2.125, 5.625, 2.125],
            "se": [0.31, 0.42, 0.3],
            "ranking": [1, 0, 2],
            "best": 1,
            "ties": [[0, 2]],
            "p_best": [0.04, 0.93, 0.03],
            "p_best_label": None,
            "p_greater": [[0.5, 0.05, 0.5], [0.95, 0.5, 0.96], [0.5, 0.04, 0.5]],
            "vote_sums": [17, 45, 17],
            "aggregate": "mean",
            "meta_rm": None,
            "principles": None,
            "principles_from": "sample",
            "k": 16,
            "k_used": 9,
            "k_valid": 8,
            "votes": [8, 8, 8],
            "stop_reason": "decided",
            "risk_full_k": 0.031,
            "position_effect": [0.5, -0.25, -0.25],
            "list_size": 3,
            "forced_leads": 2,
            "failures": {"no_scores": 1},
            "seed": 7,
            "samples": None,
            "usage": {
                "samples": 9,
                "prompt_tokens": 1000,
                "cached_tokens": 600,
                "completion_tokens": 240,
                "thought_tokens": 90,
                "principle_tokens": 0,
                "meta_tokens": 0,
                "meta_cached_tokens": 0,
            },
            "timing": {"queue_s": 0.25, "generate_s": 1.0, "total_s": 1.25},
        } | fields

    return build


@pytest.fixture
def sample() -> Sample:
    """Builds the JSON object of a sample; keyword arguments replace fields."""

    def build(index: int = 0, **fields: Any) -> dict[str, Any]:
        return {
            "index": index,
            "order": [2, 0, 1],
            "thought": f"thought of {index}",
            "principles": f"principles of {index}",
            "critique": f"critique of {index}",
            "scores": [3, 9, 4],
            "expected_scores": [3.1, 8.75, None],
            "meta_reward": None,
            "kept": True,
            "finish_reason": "stop",
            "completion_tokens": 30,
            "seed": 70 + index,
            "finished_s": 0.75,
            "failure": None,
        } | fields

    return build
