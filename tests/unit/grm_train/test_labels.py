"""Labelled requests, to `grm score` and back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from grm_client.data.jsonl import BadLine, Labels, answer_fields, error_row, parse_line, result_row
from grm_server.grm.calibration import LabelledAnswer
from grm_train.labels import Line, read_answers, read_labels

REQUEST = {"query": "q", "responses": ["a", "b", "c"], "k": 4}


def line(**fields: Any) -> bytes:
    return json.dumps({"label": 1} | REQUEST | fields).encode() + b"\n"


def lines(*texts: bytes) -> list[Line]:
    return read_labels(texts)[0]


def rows(read: Iterable[Line], **answer: Any) -> list[bytes]:
    """What `grm score` writes for these lines."""
    written = []
    for number, one in enumerate(read, 1):
        if one.text.strip():
            given = {"id": "rw", "model": "judge", "best": 1, "p_best": [0.2, 0.7, 0.1], "k_used": 4} | answer
            try:
                written.append(result_row(Labels(number, parse_line(number, one.text, {}).id), answer_fields(given)))
            except BadLine as error:
                written.append(error_row(Labels(number), error))
    return written


class TestReadLabels:
    def test_the_line_is_scored_as_it_is(self) -> None:
        text = line(id=[1], label=2, stop={"rule": "fixed"})
        assert read_labels([text]) == ([Line(text, 2)], {})

    @pytest.mark.parametrize(
        ("fields", "reason"),
        [
            ({"label": None}, "no label"),
            ({"label": 3}, "label is not the index of a response"),
            ({"label": -1}, "label is not the index of a response"),
            ({"label": True}, "label is not the index of a response"),
            ({"label": 1.0}, "label is not the index of a response"),
            ({"label": "1"}, "label is not the index of a response"),
            ({"responses": "abc"}, "label is not the index of a response"),
            ({"responses": ["a"], "label": 0}, "one response"),
            (
                {"responses": None, "response": "a"},
                'without `responses`; put `response` into a list: "responses": [response]',
            ),
        ],
    )
    def test_unusable_requests_are_counted_and_not_sent(self, fields: dict[str, Any], reason: str) -> None:
        read, skipped = read_labels([line(**fields), line()])
        assert [one.text == b"\n" for one in read] == [True, False]
        assert [one.label for one in read] == [None, 1]
        assert skipped == {reason: 1}

    def test_blank_lines_are_counted(self) -> None:
        assert read_labels([b"\n", b" \r\n"])[1] == {"blank": 2}

    @pytest.mark.parametrize("text", [b"[1]\n", b"{\n", b'{"query": "\xff"}', b"[" * 100_000])
    def test_a_line_that_is_not_a_request_is_passed_on_unchanged(self, text: bytes) -> None:
        assert read_labels([text]) == ([Line(text)], {})

    @pytest.mark.parametrize("number", [b"NaN", b"1e999", b"-Infinity"])
    def test_numbers_that_json_cannot_express_are_refused(self, number: bytes) -> None:
        (read,) = lines(line(id="?").replace(b'"?"', number))
        with pytest.raises(BadLine):
            parse_line(1, read.text, {})

    def test_a_byte_order_mark_is_accepted(self) -> None:
        assert lines(b"\xef\xbb\xbf" + line())[0].label == 1


class TestReadAnswers:
    def test_answers_are_joined_with_their_labels(self) -> None:
        read = lines(line(label=1), line(label=0), b"\n", line(label=2))
        answers = read_answers(rows(read), read)
        assert answers.model == "judge"
        assert answers.labelled == [LabelledAnswer((0.2, 0.7, 0.1), 4, label) for label in (1, 0, 2)]
        assert answers.right == 1
        assert not answers.skipped

    def test_right_is_decided_by_rewards_not_by_p_best(self) -> None:
        read = lines(line(label=1))
        assert read_answers(rows(read, best=0), read).right == 0

    def test_failed_and_missing_answers_are_counted(self) -> None:
        read = lines(line(), b"no JSON\n", line(k=1), line(k=2), line(k=3))
        written = rows(read)[:3]
        error = {"code": "too_few_votes", "message": "m"}
        written[2] = json.dumps({"line": 3, "id": None, "error": error}).encode()
        answers = read_answers(written, read)
        assert len(answers.labelled) == 1
        assert answers.skipped == {"error bad_line": 1, "error too_few_votes": 1, "no answer": 2}

    def test_labels_may_change_after_the_answers(self) -> None:
        written = rows(lines(line(id="x", label=0), line(label=1)))
        changed = lines(line(id="y", label=2), line(label=0))
        assert [item.label for item in read_answers(written, changed).labelled] == [2, 0]

    @pytest.mark.parametrize("now", [(b"\n", line()), (b"no JSON\n",), ()])
    def test_answers_to_other_lines_are_refused(self, now: tuple[bytes, ...]) -> None:
        written = rows(lines(b"\n", line(), line(k=9)))
        with pytest.raises(ValueError, match=r"row \d of the answers does not belong to a labelled request"):
            read_answers(written, lines(b"\n", *now))

    def test_an_error_names_the_field_at_fault(self) -> None:
        error = {"code": "invalid_body", "message": "m", "param": "temprature"}
        written = [json.dumps({"line": 1, "id": None, "error": error}).encode()]
        assert read_answers(written, lines(line())).skipped == {"error invalid_body (temprature)": 1}

    def test_answers_of_two_models_are_refused(self) -> None:
        read = lines(line(), line())
        written = [rows(read)[0], rows(read, model="other")[1]]
        with pytest.raises(ValueError, match="judge, other"):
            read_answers(written, read)

    @pytest.mark.parametrize("field", ["p_best", "line", "model"])
    def test_an_error_names_the_invalid_row_and_field(self, field: str) -> None:
        read = lines(line(), line())
        written = rows(read)
        written[1] = json.dumps(
            {name: value for name, value in json.loads(written[1]).items() if name != field}
        ).encode()
        with pytest.raises(ValueError, match=rf"row 2 of the answers is invalid: .*{field}"):
            read_answers(written, read)


def test_answers_in_several_formats_are_refused() -> None:
    """A calibration is of a judge as it is asked. Answers of earlier versions do not name their format."""
    read = lines(line(), line())
    old, new = rows(read)[0], rows(read, format="plain")[1]
    assert len(read_answers([old, new], read).labelled) == 2
    other = rows(read, format="thinking")[0]
    with pytest.raises(ValueError, match="several formats: plain, thinking"):
        read_answers([other, new], read)
