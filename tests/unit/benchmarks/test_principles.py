"""Groups and figures of the benchmark of principles."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.serving.principles import ARMS, Group, difference, load_groups, summary
from grm_client.transport import as_rewards
from tests.unit.conftest import Answer, answer

__all__ = ["answer"]

GROUPS = [Group("Q", ("a", "b"), 0), Group("Q", ("c", "d"), 1), Group("Q", ("e", "f"), 0)]


def answers(build: Answer, *rewards: tuple[float, float], **fields: Any) -> list[Any]:
    return [as_rewards(build(rewards=list(pair), **fields)) for pair in rewards]


def test_groups_are_pairs_of_the_same_style(tmp_path: Path) -> None:
    row = {"prompt": "Q", "chosen": ["c0", "c1", "c2"], "rejected": ["r0", "r1", "r2"]}
    (tmp_path / "chat_filtered.json").write_text(json.dumps([row, row | {"prompt": "long" * 100}]))
    groups = load_groups(tmp_path, 2, max_chars=100)
    assert [(group.query, set(group.responses)) for group in groups] == [("Q", {f"c{i}", f"r{i}"}) for i in range(3)]
    assert all(group.responses[group.best].startswith("c") for group in groups)
    with pytest.raises(FileNotFoundError):
        load_groups(tmp_path / "nothing", 1, 100)


def test_tokens_are_per_reward_and_a_tie_counts_half(answer: Answer) -> None:
    own, once, _ = ARMS
    result = summary(GROUPS, own, answers(answer, (7, 5), (7, 5), (6, 6)), 2.0)
    assert result.margins == (2, -2, 0)
    assert (result.accuracy, result.tie_rate, result.fell_back) == (0.5, pytest.approx(1 / 3), 0)
    assert (result.completion_tokens, result.computed_tokens) == (120, 200)
    usage = answer()["usage"] | {"principle_tokens": 20}
    drawn = answers(answer, (7, 5), principles_from="query", usage=usage)
    cached = answers(answer, (7, 5), principles_from="cache")
    lost = answers(answer, (7, 5), principles_from="sample")
    result = summary(GROUPS, once, [*drawn, *cached, *lost], 2.0)
    assert (result.principle_tokens, result.completion_tokens, result.fell_back) == (20 / 6, 120 + 20 / 6, 1)


def test_another_response_wins_if_the_sign_differs(answer: Answer) -> None:
    one = summary(GROUPS, ARMS[0], answers(answer, (7, 5), (7, 5), (6, 6)), 1.0)
    other = summary(GROUPS, ARMS[0], answers(answer, (6, 5), (5, 7), (7, 6)), 1.0)
    result = difference(one, other)
    assert result.others_win == pytest.approx(2 / 3)
    assert result.margin == pytest.approx((1 + 4 + 1) / 3)
