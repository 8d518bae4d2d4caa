"""JSON Lines files, in and out: one JSON object per line. Pure except `read_lines` and `resume_point`.

    in    {"query": ..., "responses": [...], "k": 8, "id": anything}           fields of a request, `id` optional
    out   {"line": 3, "id": anything, "request_id": ..., "rewards": [...], ...}  the server's `id` is `request_id`
    out   {"line": 4, "id": null, "error": {"code": ..., "message": ..., ...}}   the server's error shape

These are the rows of `grm score`; `trajectories` has those of `grm collect`. Lines are counted from 1. Each row has the
number of its line, from which a second run finds out where the first one ended.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from grm_client.errors import APIError, GRMClientError, TimedOut
from grm_client.transport import strict_json

MAX_LINE_BYTES = 16 * 1024 * 1024
MAX_LINE_DIGITS = 18
"""More than any real file needs. Bounded because `int` refuses strings of thousands of digits."""
ROW_START = b'{"line": '


class BadLine(GRMClientError):
    """An input line that is not a request."""


class NotOurFile(GRMClientError):
    """An output file that another program wrote. It was not changed."""


class Row(NamedTuple):
    """A parsed input line."""

    id: object
    """The caller's id: any JSON value; None if absent."""
    body: dict[str, Any]
    """The request to send."""


def read_lines(file: BinaryIO, max_bytes: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """The lines of a file. A line that is too long is cut to `max_bytes` + 1 bytes, which bounds the memory."""
    while line := file.readline(max_bytes + 1):
        yield line
        while len(line) > max_bytes and not line.endswith(b"\n"):
            line = file.readline(max_bytes + 1)


def parse_line(number: int, line: bytes, defaults: Mapping[str, object]) -> Row:
    """Parse one input line. `defaults` that are not None fill in missing fields. Raises BadLine."""
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(f"line {number} is longer than {MAX_LINE_BYTES} bytes")
    try:
        # Strict: a value that cannot be encoded as JSON can be neither sent nor echoed.
        fields = strict_json(line.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise BadLine(f"line {number} is not JSON in UTF-8: {error}") from error
    if not isinstance(fields, dict):
        raise BadLine(f"line {number} is not a JSON object")
    row_id = fields.pop("id", None)
    set_defaults = {name: value for name, value in defaults.items() if value is not None}
    return Row(row_id, set_defaults | fields)


def result_row(number: int, row_id: object, fields: Mapping[str, Any]) -> bytes:
    """The output row of a line that succeeded."""
    return _encode({"line": number, "id": row_id, **fields})


def answer_row(number: int, row_id: object, answer: Mapping[str, Any]) -> bytes:
    """The output row of a scored line: the whole answer, including fields that this client does not know."""
    fields = {name: value for name, value in answer.items() if name != "id"}
    return result_row(number, row_id, {"request_id": answer["id"], **fields})


def error_row(number: int, row_id: object, error: APIError | TimedOut | BadLine) -> bytes:
    """The output row of a line that failed."""
    if isinstance(error, APIError):
        detail = _detail(error.code, error.message, error.param, error.retryable, error.details)
    elif isinstance(error, TimedOut):
        detail = _detail("timed_out", str(error), retryable=True)
    else:
        detail = _detail("bad_line", str(error), details={"line": number})
    return _encode({"line": number, "id": row_id, "error": detail})


def _detail(
    code: str,
    message: str,
    param: str | None = None,
    retryable: bool = False,
    details: Mapping[str, Any] | None = None,
) -> dict[str, object]:
    return {"code": code, "message": message, "param": param, "retryable": retryable, "details": dict(details or {})}


def _encode(row: Mapping[str, object]) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def resume_point(path: Path) -> int:
    """The last input line that has a row in this output file; 0 if the file is absent or empty.

    Cuts off an incomplete last row, left by a process that died while writing. Raises NotOurFile for any other file,
    without changing it: a wrong path must not cost data.
    """
    if not path.exists():
        return 0
    last, torn, whole_bytes = 0, b"", 0
    with path.open("rb") as file:
        for row in file:
            if not row.endswith(b"\n"):
                torn = row
                break
            whole_bytes += len(row)
            if row.strip():
                last = _line_of(row, path)
    if torn:
        if torn[: len(ROW_START)] != ROW_START[: len(torn)]:
            raise _not_ours(path)
        with path.open("r+b") as file:
            file.truncate(whole_bytes)
    return last


def _line_of(row: bytes, path: Path) -> int:
    """The input line of a row."""
    digits = row.removeprefix(ROW_START).partition(b",")[0]
    if not row.startswith(ROW_START) or not digits.isdigit() or len(digits) > MAX_LINE_DIGITS:
        raise _not_ours(path)
    return int(digits)


def _not_ours(path: Path) -> NotOurFile:
    return NotOurFile(f"{path} was not written by this command; choose another output file")
