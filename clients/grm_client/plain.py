"""Values of tables and arrays as plain ones. numpy, pandas and torch are recognised by their methods, not imported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from math import isnan

MAX_DEPTH = 64
_MISSING = frozenset({"NAType", "NaTType"})
"""pandas' other missing values, by their types' names. They compare with nothing, not even with themselves."""


def plain(value: object, depth: int = 0) -> object:
    """A value that `json` can encode. Arrays become lists, NaN and pandas' missing values None, bytes text, objects of
    other types their text.

    Raises ValueError for bytes that are not UTF-8 and for values that are nested too deeply.
    """
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, float) and isnan(value):
        return None
    if isinstance(value, memoryview):
        value = value.tobytes()
    if isinstance(value, bytes | bytearray):
        return value.decode()
    if isinstance(value, str):
        return str(value)
    # numpy's float64 is a float with a `tolist` too.
    converted = unwrapped(value)
    if type(converted) is not type(value):
        return plain(converted, depth + 1)
    if value is None or isinstance(value, bool | int | float):
        return value
    if type(value).__name__ in _MISSING:
        return None
    if isinstance(value, Mapping):
        return {str(plain(name, depth + 1)): plain(item, depth + 1) for name, item in value.items()}
    if isinstance(value, Set):
        return [plain(item, depth + 1) for item in sorted(value, key=repr)]
    if isinstance(value, Sequence):
        return [plain(item, depth + 1) for item in value]
    return str(value)


def unwrapped(value: object) -> object:
    """The Python value of a number or array of another library; any other value itself."""
    for name in ("tolist", "item"):
        method = getattr(value, name, None)
        if callable(method):
            return method()
    return value


def label_text(label: object) -> str | None:
    """A label of any type as text: numbers and lists as JSON; None if it is missing.

    Raises ValueError as `plain`.
    """
    value = plain(label)
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
