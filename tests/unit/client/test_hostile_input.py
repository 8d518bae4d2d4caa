"""Malformed files and answers: each parser raises its own error and nothing else."""

from __future__ import annotations

import io
import json
import random
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grm_client import APIError
from grm_client.data.jsonl import (
    BadLine,
    Labels,
    answer_fields,
    error_row,
    parse_line,
    read_lines,
    request_key,
    result_row,
)
from grm_client.data.resume import NotOurFile, read_earlier
from grm_client.data.trajectories import read_rows
from grm_client.rule_reward import boxed_scores
from grm_client.transport import as_rewards, read_outcome, retry_delay, server_error, strict_json

URL = "http://judge:8000"
TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.sampled_from([10**400, -(2**63)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
JUNK = (
    st.binary(max_size=30)
    | VALUES.map(lambda value: json.dumps(value).encode())
    | VALUES.map(lambda value: json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))
    | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"9" * 5000, b'{"query": 1e999}', b"\xef\xbb\xbf{}"])
)


@given(JUNK)
def test_a_line_parses_or_is_a_bad_line_and_its_row_can_be_encoded(line: bytes) -> None:
    try:
        row = parse_line(3, line, {"k": 4})
    except BadLine as error:
        json.loads(error_row(Labels(3), error))
        return
    body = strict_json(line.removeprefix(b"\xef\xbb\xbf"))
    assert isinstance(body, dict)
    assert row.body["k"] == (4 if body.get("k") is None else body["k"])
    # The parsed line can be sent, and its id and other columns echoed in a row.
    json.dumps(row.body, allow_nan=False).encode()
    labels = Labels(3, row.id, request_key(row.body), {"k": 4}, row.meta)
    written = json.loads(result_row(labels, answer_fields({"id": "x"})))
    assert (written["id"], written.get("meta", {})) == (row.id, row.meta)


@given(JUNK, st.sampled_from([200, 201, 204, 400, 429, 500, 502, 503]), st.text(max_size=5))
def test_an_answer_is_an_object_or_raises_our_error(content: bytes, status: int, after: str) -> None:
    headers = {b"retry-after": after.encode()} if after.isascii() and after.isprintable() else {}
    response = httpx.Response(status, content=content, headers=headers, request=httpx.Request("POST", URL))
    delay_s = retry_delay(2, response, random.Random(0))
    assert delay_s is None or 0 <= delay_s <= 90
    server_error(status, content)
    try:
        answer = read_outcome(response, URL)
    except APIError:
        return
    with pytest.raises(APIError, match="could not be read"):
        as_rewards(answer)


ROW = error_row(Labels(1), APIError(400, "no", "no"))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.just(ROW)
        | st.binary(max_size=20)
        | st.sampled_from([b'{"line": ', b"7, ", b"\n", b'{"line": ' + b"9" * 5000 + b",", b'{"line": -1, "id": 3}\n']),
        max_size=5,
    ).map(b"".join)
)
def test_a_file_is_resumed_or_refused_without_losing_a_complete_row(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(content)
    try:
        assert not read_earlier(path, {})
    except NotOurFile:
        assert path.read_bytes() == content
        return
    assert path.read_bytes() == content[: content.rfind(b"\n") + 1]


@given(st.lists(st.just(ROW) | JUNK))
def test_trajectories_parse_or_raise_with_the_row(rows: list[bytes]) -> None:
    lines = [row.rstrip(b"\n").replace(b"\n", b" ") + b"\n" for row in rows]
    if all(row == ROW for row in lines):
        assert len(list(read_rows(lines))) == len(rows)
    else:
        with pytest.raises(ValueError, match="not a row of `grm collect`"):
            list(read_rows(lines))


@given(
    st.lists(st.sampled_from(["\\boxed", "{", "}", "7", "11", ",", " ", "\n", "-", "\u0667", "9" * 5000])).map("".join)
)
def test_a_box_gives_valid_scores_or_none(text: str) -> None:
    scores = boxed_scores(text)
    assert scores is None or all(1 <= score <= 10 for score in scores)


@given(st.binary(max_size=60), st.integers(1, 9))
def test_lines_are_bounded_in_size(content: bytes, max_bytes: int) -> None:
    lines = list(read_lines(io.BytesIO(content), max_bytes))
    assert len(lines) == len(content.splitlines(keepends=True)) or b"\r" in content
    assert all(len(line) <= max_bytes + 1 for line in lines)
