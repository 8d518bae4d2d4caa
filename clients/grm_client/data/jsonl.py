"""Files worked through line by line: one JSON object a line, in and out. Pure but for `read_lines` and `resume_point`.

    in    {"query": ..., "responses": [...], "k": 8, "id": anything}           fields of a request, `id` optional
    out   {"line": 3, "id": anything, "request_id": ..., "rewards": [...], ...}  the server's `id` is `request_id`
    out   {"line": 4, "id": null, "error": {"code": ..., "message": ..., ...}}   the server's error shape

These are the rows of `grm score`; those of `grm collect` are in `trajectories`. Lines are counted from 1. A row names
its line, which is how a second run finds out where the first one ended.
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
"""No file has more lines, and Python makes no number of very many digits."""
ROW_START = b'{"line": '


class BadLine(GRMClientError):
    """An input line that is no request."""


class NotOurFile(GRMClientError):
    """An output file that another program wrote; nothing in it was changed."""


class Row(NamedTuple):
    """An input line, read."""

    id: object
    """What the caller calls the row: any JSON value, None if it had none."""
    body: dict[str, Any]
    """The request to send."""


def read_lines(file: BinaryIO, max_bytes: int = MAX_LINE_BYTES) -> Iterator[bytes]:
    """The lines of a file. One that is too long is cut to `max_bytes` + 1, so that it never has to fit into memory."""
    while line := file.readline(max_bytes + 1):
        yield line
        while len(line) > max_bytes and not line.endswith(b"\n"):
            line = file.readline(max_bytes + 1)


def parse_line(number: int, line: bytes, defaults: Mapping[str, object]) -> Row:
    """Read one input line; `defaults` that are not None stand in for the fields it lacks."""
    if len(line) > MAX_LINE_BYTES:
        raise BadLine(f"line {number} is longer than {MAX_LINE_BYTES} bytes")
    try:
        # Strict, for what cannot be written as JSON can neither be sent nor echoed.
        fields = strict_json(line.removeprefix(codecs.BOM_UTF8))
    except ValueError as error:
        raise BadLine(f"line {number} is not JSON in UTF-8: {error}") from error
    if not isinstance(fields, dict):
        raise BadLine(f"line {number} is not a JSON object")
    row_id = fields.pop("id", None)
    given = {name: value for name, value in defaults.items() if value is not None}
    return Row(row_id, given | fields)


def result_row(number: int, row_id: object, fields: Mapping[str, Any]) -> bytes:
    """The output row of a line that was answered."""
    return _encode({"line": number, "id": row_id, **fields})


def answer_row(number: int, row_id: object, answer: Mapping[str, Any]) -> bytes:
    """The output row of a scored line: the whole answer, also what this client does not know of."""
    rest = {name: value for name, value in answer.items() if name != "id"}
    return result_row(number, row_id, {"request_id": answer["id"], **rest})


def error_row(number: int, row_id: object, error: APIError | TimedOut | BadLine) -> bytes:
    """The output row of a line without rewards."""
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

    A last row that was being written when the process died is cut off. Raises NotOurFile, before anything is changed,
    for a file of another kind: to be given the wrong path must not cost data.
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
    """The input line that a row belongs to."""
    digits = row.removeprefix(ROW_START).partition(b",")[0]
    if not row.startswith(ROW_START) or not digits.isdigit() or len(digits) > MAX_LINE_DIGITS:
        raise _not_ours(path)
    return int(digits)


def _not_ours(path: Path) -> NotOurFile:
    return NotOurFile(f"{path} holds something else than the rows of this command; choose another output file")
