"""Trajectories of judges on other scales, that think, and of files that earlier versions wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from grm_client.data.collect_report import summarise
from grm_client.data.trajectories import ItemRow, label_samples, read_rows
from grm_client.types import Sample
from tests.unit.client.labelled import RIGHT, row

SampleFields = Callable[..., dict[str, Any]]


@pytest.mark.parametrize(("score", "points", "good"), [(3, 5.5, 1), (2, 3.25, 0), (4, 7.75, 1)])
def test_one_response_on_another_scale_is_good_from_the_middle_up(
    sample: SampleFields, score: int, points: float, good: int
) -> None:
    given = Sample(**sample(0, order=[0], scores=[score], expected_scores=None, points=[points]))
    assert [result.right for result in label_samples([given], good, hinted=False)] == [True]
    assert [result.right for result in label_samples([given], 1 - good, hinted=False)] == [False]


def test_several_verdicts_are_compared_by_their_weighted_points(sample: SampleFields) -> None:
    """The scores are those of the first verdict alone, here a tie that the second one decides."""
    given = Sample(**sample(0, order=[0, 1], scores=[4, 4], expected_scores=None, points=[6.5, 7.5]))
    (labelled,) = label_samples([given], 1, hinted=False)
    assert labelled.right is True
    item = json.loads(row(1, labelled))
    assert summarise([ItemRow.model_validate(item)]).tied == 0


def test_a_row_keeps_what_the_judge_thought_and_wrote(sample: SampleFields) -> None:
    given = Sample(**sample(0, thought="Hm.", points=[3, 9, 4], verdict="4, 3, 9}"))
    (labelled,) = label_samples([given], 1, hinted=False)
    assert (labelled.thought, labelled.points, labelled.verdict) == ("Hm.", (3, 9, 4), "4, 3, 9}")
    (read,) = read_rows([row(1, labelled)])
    assert isinstance(read, ItemRow)
    assert read.samples == [labelled]


def test_a_sample_without_a_thought_has_no_such_field() -> None:
    assert not {"thought", "points", "verdict"} & RIGHT.model_dump().keys()


def test_rows_of_earlier_versions_are_those_of_the_built_in_format() -> None:
    old = json.loads(row(1, RIGHT))
    assert "format" not in old, "as earlier versions wrote it"
    (read,) = read_rows([json.dumps(old).encode() + b"\n"])
    assert isinstance(read, ItemRow)
    assert read.format == "deepseek-grm"
    assert read.samples[0].rated == (9, 1)
