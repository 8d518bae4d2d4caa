"""Continue an output file: which requests have their answer, and a file in input order at the end.

Rows are matched by `key`, the hash of the request, so the input may be reordered, shortened, extended and edited
between two runs. Rows with an error do not count: their lines are processed again.

During a run new rows are appended to the output, which therefore holds every answer whatever happens. Beside it a copy
in input order is written; it replaces the output when all lines are processed.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pydantic import BaseModel, Field, ValidationError

from grm_client.data.jsonl import Labels, encode_row
from grm_client.errors import GRMClientError
from grm_client.transport import strict_json

ROW_START = b'{"line": '


class NotOurFile(GRMClientError):
    """An output file that another program wrote. It was not changed."""


class Mixture(GRMClientError):
    """Answers of another judge, other options or other requests would get into one file. It was not changed."""


class _Row(BaseModel):
    """What we read of an existing row. Extra fields are ignored."""

    line: int = Field(ge=1, strict=True)
    key: str | None = None
    options: dict[str, Any] | None = None
    model: str | None = None
    error: dict[str, Any] | None = None


class _Place(NamedTuple):
    """Where a row is in the output file, in bytes."""

    offset: int
    size: int


class Earlier:
    """The answers that an output file holds already."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.dropped_path = path.with_name(path.name + ".dropped")
        """Where answers to requests go that the input no longer has."""
        self._places: dict[str, list[_Place]] = {}
        self._rows: BinaryIO | None = None
        self._copy: BinaryIO | None = None
        self.judge: str | None = None
        """Name of the judge of these answers; None if there are none, or none of them has scores."""

    def __bool__(self) -> bool:
        """Whether there were any when the run began."""
        return bool(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def __len__(self) -> int:
        """Those that no line has taken yet."""
        return sum(map(len, self._places.values()))

    def add(self, key: str, offset: int, size: int) -> None:
        self._places.setdefault(key, []).append(_Place(offset, size))

    def take(self, labels: Labels) -> bytes | None:
        """The row that answers the request `labels.key`, with these labels, or None. Each row is taken once: two equal
        lines get two answers."""
        places = self._places.get(labels.key or "")
        if not places:
            return None
        row = strict_json(self._read(places.pop(0)))
        assert isinstance(row, dict)
        return encode_row(labels.fields() | {name: row[name] for name in row if name not in Labels._fields})

    def _read(self, place: _Place) -> bytes:
        assert self._rows is not None
        self._rows.seek(place.offset)
        return self._rows.read(place.size)

    def copy(self, row: bytes) -> None:
        """Write the next row of the copy in input order."""
        if self._copy is not None:
            self._copy.write(row)

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The output file, to append new rows to. If the block ends well, the file is then in input order, and answers
        to requests that the input no longer has are in `dropped_path`."""
        path = self.path.resolve()
        with contextlib.ExitStack() as stack:
            out = stack.enter_context(path.open("ab"))
            if not path.stat().st_size:
                yield out
                return
            part = path.with_name(path.name + ".part")
            stack.callback(part.unlink, missing_ok=True)
            self._rows = stack.enter_context(path.open("rb"))
            self._copy = stack.enter_context(part.open("wb"))
            yield out
            self._copy.close()
            self._keep_unused()
            shutil.copymode(path, part)
            part.replace(path)

    def _keep_unused(self) -> None:
        """Answers cost samples: we move those that no line asks for, we do not delete them."""
        unused = [place for places in self._places.values() for place in places]
        if unused:
            with self.dropped_path.open("ab") as file:
                file.writelines(self._read(place) for place in sorted(unused))


def read_earlier(path: Path, options: Mapping[str, object]) -> Earlier:
    """The answers in `path`; none if it is absent or empty.

    Cuts off an incomplete last row, left by a process that died while writing. Raises NotOurFile for a file of another
    kind and Mixture for answers under other `options` or of several judges, without changing the file.
    """
    earlier, judges, end = Earlier(path), set[str](), 0
    if not path.exists():
        return earlier
    with path.open("rb") as file:
        for text in file:
            if not text.endswith(b"\n"):
                if text[: len(ROW_START)] != ROW_START[: len(text)]:
                    raise _not_ours(path)
                break
            if text.strip() and (row := _read_row(path, text)).error is None:
                if row.options != options:
                    raise Mixture(_other_options(path, row.options or {}, options))
                earlier.add(row.key or "", end, len(text))
                judges.update([row.model] if row.model is not None else [])
            end += len(text)
    if len(judges) > 1:
        raise Mixture(f"{path} holds answers of several judges ({', '.join(sorted(judges))}); choose another file")
    if end < path.stat().st_size:
        with path.open("r+b") as file:
            file.truncate(end)
    earlier.judge = next(iter(judges), None)
    return earlier


def _read_row(path: Path, text: bytes) -> _Row:
    if not text.startswith(ROW_START):
        raise _not_ours(path)
    try:
        row = _Row.model_validate(strict_json(text))
    except (ValidationError, ValueError):
        raise _not_ours(path) from None
    if row.options is None or (row.key is None and row.error is None):
        raise NotOurFile(
            f"{path} was written by an earlier version of grm, whose rows do not say which request they answer, so it "
            "cannot be resumed. It is unchanged; choose another output file. If line N was its last, "
            "`tail -n +M` on the requests, with M = N + 1, gives those without an answer"
        )
    return row


def _not_ours(path: Path) -> NotOurFile:
    return NotOurFile(f"{path} was not written by this command; choose another output file")


def _other_options(path: Path, old: Mapping[str, object], new: Mapping[str, object]) -> str:
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    old_text, new_text = (
        ", ".join(f"{name} = {options[name]}" if name in options else f"no {name}" for name in names)
        for options in (old, new)
    )
    return f"{path} was written with {old_text}; this run has {new_text}. Repeat these options, or choose another file"


def refuse_other_requests(earlier: Earlier, keys: Iterable[str]) -> None:
    """Raises Mixture if `earlier` has answers and none of them belongs to these requests."""
    if earlier and not any(key in earlier for key in keys):
        raise Mixture(f"{earlier.path} holds {len(earlier)} answers, all to other requests; choose another file")
