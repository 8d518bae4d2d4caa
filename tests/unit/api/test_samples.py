"""Samples in answers: the judge's own values, their points, and the verdict as it was written."""

from __future__ import annotations

import pytest

from grm_server.api.to_wire import to_sample
from grm_server.grm.parse import parse
from grm_server.grm.script import Sample
from grm_server.grm.types import Draw, Failure, FailureReason
from tests.unit.grm_train.own_formats import TWO_VERDICTS, form

GRAMMARS = form(TWO_VERDICTS).grammars(2)


def test_points_combine_all_verdicts_and_scores_are_the_judges_own() -> None:
    sample = Sample({"critique": "So.", "verdict": "4, 5", "verdict 2": "4"})
    out = to_sample(parse(GRAMMARS, Draw(0, (2, 0), 1), sample, 3), 0.0)
    assert out.scores == [5, None, 4]
    # In request order (1, 0.75) on 0..1 with weight 1, and the preference (1, 0) with weight 0.5.
    assert out.points == [pytest.approx(10), None, pytest.approx(5.5)]
    assert out.verdict == "4, 5\n4"


def test_a_sample_without_scores_keeps_what_was_written() -> None:
    out = to_sample(Failure(Draw(0, (0, 1), 1), FailureReason.NO_SCORES, Sample({"verdict": "?"})), 0.0)
    assert (out.scores, out.points, out.verdict) == (None, None, "?")
    nothing = to_sample(Failure(Draw(0, (0, 1), 1), FailureReason.ENGINE_ERROR, Sample({"critique": "So"})), 0.0)
    assert nothing.verdict is None
    assert to_sample(Failure(Draw(0, (0, 1), 1), FailureReason.ENGINE_ERROR), 0.0).verdict is None
