"""JSON Lines files, in and out: one JSON object per line. Pure except `read_lines`.

    in    {"query": ..., "responses": [...], "k": 8, "id": anything, "source": ...}   `id` and other columns optional
    out   {"line": 3, "id": anything, "key": ..., "options": {...}, "meta": {"source": ...}, "request_id": ...,
           "rewards": [...], ...}                                              the server's `id` is `request_id`
    out   {"line": 4, "id": null, "key": ..., "options": {...}, "error": {"code": ..., "message": ..., ...}}

These are the rows of `grm score`; `trajectories` has those of `grm collect`. Lines are counted from 1.

key: hash of the request with the run's options. A later run finds by it which requests have their answer (`resume`).
options: those of the run, which apply to lines that do not set them.
meta: columns of the input that are no fields of a request, unchanged; absent if there are none.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from grm_client.data.columns import REQUEST_FIELDS, what_is_meant
from grm_client.errors import APIError, GRMClientError, TimedOut
from grm_client.transport import strict_json

MAX_LINE_BYTES = 16 * 1024 * 1024


class BadLine(GRMClientError):
    """An input line that is not a request."""

    def __init__(self, number: int, problem: str) -> None:
        super().__init__(number, problem)
        self.number = number
        self.problem = problem
        """What is wrong, the same text for all lines with this problem. Completes "line 3 is ..."."""

    def __str__(self) -> str:
        return f"line {self.number} is {self.problem}"


class Row(NamedTuple):
    """A parsed input line."""

    id: object
    """The caller's id: any JSON value; None if absent."""
    body: dict[str, Any]
    """The request to send, with the run's options. Fields that are null are absent: tables fill empty cells so."""
    meta: dict[str, Any]
    """Columns that are no fields of a request. They are not sent."""


class Labels(NamedTuple):
    """The fields with which every output row begins."""

    line: int
    id: object = None
    key: str | None = None
    """None for a line that could not be parsed."""
    options: Mapping[str, object] = {}
    meta: Mapping[str, object] = {}

    def fields(self) -> dict[str, object]:
        fields = {**self._asdict(), "options": dict(self.options)}
        if not self.meta:
            del fields["meta"]
        return fields


def read_lines(file: BinaryIO, max_bytes: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """The lines of a file. A line that is too long is cut to `max_bytes` + 1 bytes, which bounds the memory."""
    while line := file.readline(max_bytes + 1):
        yield line
        while len(line) > max_bytes and not line.endswith(b"\n"):
            line = file.readline(max_bytes + 1)


def parse_line(number: int, line: bytes, options: Mapping[str, object]) -> Row:
    """Parse one input line. `options` fill in missing fields. Raises BadLine."""
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(number, f"longer than {MAX_LINE_BYTES} bytes")
    try:
        # Strict: a value that cannot be encoded as JSON can be neither sent nor echoed.
        columns = strict_json(line.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise BadLine(number, f"not JSON in UTF-8: {error}") from error
    if not isinstance(columns, dict):
        raise BadLine(number, "not a JSON object")
    row_id = columns.pop("id", None)
    own = {name: value for name, value in columns.items() if name in REQUEST_FIELDS and value is not None}
    meta = {name: value for name, value in columns.items() if name not in REQUEST_FIELDS}
    # Scoring a file whose rows have `meta` already must not nest it.
    inner = meta.pop("meta", None)
    meta = {**inner, **meta} if isinstance(inner, dict) else meta if inner is None else {"meta": inner, **meta}
    return Row(row_id, {**options, **own}, meta)


def parse_request(number: int, line: bytes, options: Mapping[str, object]) -> Row:
    """`parse_line` for a line that must be a whole request. Raises BadLine with the names that are meant."""
    row = parse_line(number, line, options)
    if problem := shape_problem(row):
        raise BadLine(number, problem)
    return row


def shape_problem(row: Row) -> str | None:
    """What a row without query or responses must have instead of its columns; None for a request."""
    missing = [name for name in ("query", "responses") if name not in row.body]
    return what_is_meant(missing, row.meta) if missing else None


def request_key(body: Mapping[str, Any]) -> str:
    """Hash of a request, independent of the order of its fields."""
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()


def result_row(labels: Labels, fields: Mapping[str, Any]) -> bytes:
    """The output row of a line that succeeded."""
    return encode_row({**labels.fields(), **fields})


def answer_fields(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The row's fields of a scored line: the whole answer, including fields that this client does not know."""
    return {"request_id": answer["id"], **{name: value for name, value in answer.items() if name != "id"}}


def error_row(labels: Labels, error: APIError | TimedOut | BadLine) -> bytes:
    """The output row of a line that failed."""
    if isinstance(error, APIError):
        detail = _detail(error.code, error.message, error.param, error.retryable, error.details)
    elif isinstance(error, TimedOut):
        detail = _detail("timed_out", str(error), retryable=True)
    else:
        detail = _detail("bad_line", str(error), details={"line": error.number})
    return encode_row(labels.fields() | {"error": detail})


def _detail(
    code: str,
    message: str,
    param: str | None = None,
    retryable: bool = False,
    details: Mapping[str, Any] | None = None,
) -> dict[str, object]:
    return {"code": code, "message": message, "param": param, "retryable": retryable, "details": dict(details or {})}


def encode_row(row: Mapping[str, object]) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
