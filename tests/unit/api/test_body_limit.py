"""`check_shape` counts items and depth in the bytes of a body exactly as the JSON parser does."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grm_server.api.middleware.body_limit import check_shape
from grm_server.errors import InvalidBody

TEXT = st.text(st.sampled_from('ab"\\[]{},:\n\u20ac\U0001f600'), max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=30,
)


def items(value: Any) -> int:
    """Strings (with keys), objects and lists."""
    match value:
        case str():
            return 1
        case dict():
            return 1 + len(value) + sum(map(items, value.values()))
        case list():
            return 1 + sum(map(items, value))
    return 0


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


def refused(body: bytes, max_items: int, max_depth: int) -> bool:
    try:
        check_shape(body, max_items=max_items, max_depth=max_depth)
    except InvalidBody:
        return True
    return False


@given(value=JSON, ascii_only=st.booleans(), indent=st.sampled_from([None, 1]))
def test_items_and_depth_are_those_of_the_parsed_value(value: Any, ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    count, deep = items(value), depth(value)
    assert not refused(body, count, deep)
    assert count == 0 or refused(body, count - 1, deep)
    assert deep == 0 or refused(body, count, deep - 1)


@given(body=st.text(st.sampled_from('ab"\\[]{},:1'), max_size=40))
def test_malformed_json_is_left_to_the_parser(body: str) -> None:
    refused(body.encode(), 1000, 1000)


MIB = 2**20


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"[" * 4 * MIB, "more strings, objects and lists"),
        (b"[" + b"[]," * MIB + b"1]", "more strings, objects and lists"),
        (b"{" + b'"k":1,' * 600_000 + b'"k":1}', "more strings, objects and lists"),
        (b"[" * 65 + b"]" * 65, "deeper"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper"),
        (json.dumps({"query": "x"}).encode("utf-16-le"), "UTF-8"),
        (json.dumps({"query": "x"}).encode("utf-32"), "UTF-8"),
    ],
)
def test_expensive_bodies_are_refused(body: bytes, complaint: str) -> None:
    with pytest.raises(InvalidBody, match=complaint):
        check_shape(body, max_items=20_000, max_depth=64)


def test_long_texts_full_of_brackets_are_accepted() -> None:
    body = json.dumps({"query": "Q", "responses": ['def f(): return {"a": [1, [2, [3]]]} ' * 25_000] * 4}).encode()
    check_shape(body, max_items=20_000, max_depth=64)


@pytest.mark.parametrize("start", [b'["', b"[" * 65 + b'"', b'["' + b'"' * 50_000])
@pytest.mark.parametrize("rest", [b'\\"' * MIB, b"\\" * MIB + b'"', b"\\" * (MIB + 1)])
def test_an_unterminated_string_costs_linear_time(start: bytes, rest: bytes) -> None:
    """With backtracking it would take hours, and block the event loop for all other requests."""
    with contextlib.suppress(InvalidBody):
        check_shape(start + rest, max_items=20_000, max_depth=64)
