"""Input lines and output rows."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_client import TimedOut
from grm_client.data.jsonl import BadLine, Labels, error_row, parse_line, parse_request, read_lines, request_key


class TestParseLine:
    def test_options_fill_in_missing_fields_only(self) -> None:
        read = parse_line(1, b'{"query":"q","responses":["a"],"k":2,"task":null,"id":[1]}\n', {"k": 9, "task": "math"})
        assert read.id == [1]
        assert read.body == {"query": "q", "responses": ["a"], "k": 2, "task": "math"}

    def test_a_null_field_is_absent(self) -> None:
        assert parse_line(1, b'{"query":"q","task":null}', {}).body == {"query": "q"}

    def test_other_columns_are_not_sent(self) -> None:
        read = parse_line(1, b'{"query":"q","source":null,"label":1,"temprature":0.5,"line":3}', {})
        assert read.body == {"query": "q"}
        assert read.meta == {"source": None, "label": 1, "temprature": 0.5, "line": 3}

    @pytest.mark.parametrize(
        ("line", "meta"),
        [
            ({"meta": {"a": 1, "b": 2}, "b": 3}, {"a": 1, "b": 3}),
            ({"meta": [1], "b": 3}, {"meta": [1], "b": 3}),
            ({"meta": None}, {}),
        ],
    )
    def test_a_meta_column_is_not_nested(self, line: dict[str, object], meta: dict[str, object]) -> None:
        assert parse_line(1, json.dumps(line).encode(), {}).meta == meta

    @pytest.mark.parametrize(
        "line",
        [b"{", b"[]", b"3", b'{"query": NaN}', b'{"query": 1e999}', b'{"query":"\xff"}', b'{"query":"\\ud800"}']
        + [b"[" * 100_000],
        ids=lambda line: line[:20],
    )
    def test_an_invalid_line_raises_with_its_number(self, line: bytes) -> None:
        with pytest.raises(BadLine, match="line 41"):
            parse_line(41, line, {})

    def test_a_line_that_is_too_long_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("grm_client.data.jsonl.MAX_LINE_BYTES", 12)
        assert parse_line(1, b'{"query":""}', {}).body == {"query": ""}
        with pytest.raises(BadLine, match="longer than 12 bytes"):
            parse_line(1, b'{"query":" "}', {})

    def test_a_byte_order_mark_is_ignored(self) -> None:
        assert parse_line(1, b'\xef\xbb\xbf{"id": 1}', {}).id == 1


class TestRowsOfOtherShapes:
    @pytest.mark.parametrize(
        ("columns", "advice"),
        [
            (
                ("prompt", "chosen", "rejected"),
                "without `query` and `responses`; rename `prompt` to `query` and put `chosen` and `rejected` into a "
                'list: "responses": [chosen, rejected], "label": 0',
            ),
            (("query", "response"), 'without `responses`; put `response` into a list: "responses": [response]'),
            (
                ("messages", "completions"),
                "without `query` and `responses`; rename `messages` to `query` and rename `completions` to "
                "`responses`, a list of strings",
            ),
            (("responses", "x"), "without `query`; see the format in docs/api.md"),
        ],
    )
    def test_the_error_says_what_is_meant(self, columns: tuple[str, ...], advice: str) -> None:
        line = json.dumps(dict.fromkeys(columns, "x")).encode()
        with pytest.raises(BadLine) as caught:
            parse_request(3, line, {})
        assert caught.value.problem == advice
        assert str(caught.value) == f"line 3 is {advice}"


def test_a_key_depends_on_the_values_of_a_request_only() -> None:
    body = {"query": "q", "responses": ["a", "b"], "stop": {"rule": "decided", "gamma": 0.1}}
    moved = {"stop": {"gamma": 0.10, "rule": "decided"}, "responses": ["a", "b"], "query": "q"}
    assert request_key(body) == request_key(moved)
    for other in ({"query": "Q"}, {"responses": ["b", "a"]}, {"k": 4}, {"stop": {"rule": "fixed"}}):
        assert request_key(body | other) != request_key(body)


class TestReadLines:
    @given(st.lists(st.sampled_from([b"a", b"bbbb", b"", b"\n"])), st.integers(1, 8))
    def test_long_lines_are_cut(self, parts: list[bytes], max_bytes: int) -> None:
        text = b"".join(parts)
        expected = [line[: max_bytes + 1] for line in text.splitlines(keepends=True)]
        assert list(read_lines(io.BytesIO(text), max_bytes)) == expected


def test_a_timeout_has_its_own_code() -> None:
    error = json.loads(error_row(Labels(1), TimedOut("slow")))["error"]
    assert (error["code"], error["retryable"]) == ("timed_out", True)
    assert error.keys() == {"code", "message", "param", "retryable", "details"}
