"""Input lines, output rows, and where a second run resumes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_client import APIError, TimedOut
from grm_client.data.jsonl import BadLine, NotOurFile, error_row, parse_line, read_lines, resume_point


def row(line: int) -> bytes:
    return error_row(line, "é\n", APIError(400, "no", "no"))


class TestParseLine:
    def test_defaults_fill_in_missing_fields_only(self) -> None:
        read = parse_line(
            1, b'{"query":"q","responses":["a"],"k":2,"id":[1]}\n', {"k": 9, "seed": 3, "min_votes": None}
        )
        assert read.id == [1]
        assert read.body == {"query": "q", "responses": ["a"], "k": 2, "seed": 3}

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


class TestReadLines:
    @given(st.lists(st.sampled_from([b"a", b"bbbb", b"", b"\n"])), st.integers(1, 8))
    def test_long_lines_are_cut(self, parts: list[bytes], max_bytes: int) -> None:
        text = b"".join(parts)
        expected = [line[: max_bytes + 1] for line in text.splitlines(keepends=True)]
        assert list(read_lines(io.BytesIO(text), max_bytes)) == expected


def test_a_timeout_has_its_own_code() -> None:
    error = json.loads(error_row(1, None, TimedOut("slow")))["error"]
    assert (error["code"], error["retryable"]) == ("timed_out", True)
    assert error.keys() == {"code", "message", "param", "retryable", "details"}


class TestResumePoint:
    def test_an_absent_or_empty_file_starts_at_the_beginning(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        assert resume_point(path) == 0
        path.touch()
        assert resume_point(path) == 0

    def test_the_last_row_counts_not_the_number_of_rows(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.write_bytes(row(1) + row(4) + row(12) + b"\n\n")
        assert resume_point(path) == 12
        assert path.read_bytes() == row(1) + row(4) + row(12) + b"\n\n"

    def test_an_incomplete_last_row_is_cut_off(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        for cut in range(1, len(row(13))):
            path.write_bytes(row(1) + row(12) + row(13)[:cut])
            assert resume_point(path) == 12
            assert path.read_bytes() == row(1) + row(12)

    def test_an_incomplete_first_row_leaves_an_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "out.jsonl"
        path.write_bytes(row(1)[:-1])
        assert resume_point(path) == 0
        assert path.read_bytes() == b""

    @pytest.mark.parametrize(
        "content",
        [
            b'{"query": "q", "responses": ["a"]}\n',
            b'{"query": "q", "responses": ["a"]}',
            b"dear diary",
            row(1) + b"dear diary",
            row(1) + b'{"line": true}\n',
            b'{"line": , "id": 3}\n',
        ],
    )
    def test_any_other_file_is_refused_unchanged(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "out.jsonl"
        path.write_bytes(content)
        with pytest.raises(NotOurFile, match=r"out\.jsonl"):
            resume_point(path)
        assert path.read_bytes() == content
