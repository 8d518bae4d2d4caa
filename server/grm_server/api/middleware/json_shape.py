"""What a JSON text would cost to parse, told from its bytes.

Texts are cheap however long. What is dear is many values: 4 MiB of `[],[],...` take seconds to parse, and many wrong
fields take longer still to complain about.
"""

from __future__ import annotations

import re

from grm_server.errors import InvalidBody

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""One that does not end reaches to the end of the body. Nothing is tried twice, so that any body costs linear time."""
_BRACKET = re.compile(rb"[\[{\]}]")


def check_shape(body: bytes, *, max_items: int, max_depth: int) -> None:
    """Raises InvalidBody for more strings, objects and lists than `max_items`, or more within one another than
    `max_depth`. What is no JSON at all is left to the parser."""
    if b"\0" in body:
        raise InvalidBody("the body is not JSON in UTF-8: it holds a zero byte")
    brackets = body.count(b"[") + body.count(b"{")
    if brackets <= max_depth and brackets + body.count(b'"') // 2 <= max_items:
        return
    rest, strings = _STRING.subn(b"", body, count=max_items + 1)
    items = strings + rest.count(b"[") + rest.count(b"{")
    if items > max_items:
        raise InvalidBody(
            f"the body holds more strings, objects and lists than http.max_body_items = {max_items}",
            details={"limit": max_items},
        )
    depth = 0
    for bracket in _BRACKET.finditer(rest):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > max_depth:
            raise InvalidBody(
                f"the body nests objects and lists deeper than http.max_body_depth = {max_depth}",
                details={"limit": max_depth},
            )
