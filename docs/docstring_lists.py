"""Griffe extension for the client reference: parameters as this project documents them, shown as a list.

    query: one user turn, or chat messages.
    responses: (n,), n >= 1.

Markdown would join these lines.
"""

from __future__ import annotations

import re
from typing import Any

import griffe


class ParameterLists(griffe.Extension):
    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        if func.docstring is not None:
            func.docstring.value = as_list(
                func.docstring.value, {parameter.name.lstrip("*") for parameter in func.parameters}
            )


def as_list(docstring: str, names: set[str]) -> str:
    """The docstring, with each line `name: text` of a parameter turned into a list item."""
    lines, in_list = [], False
    for line in docstring.splitlines():
        match = re.match(r"(\w+): (.*)", line)
        if match and match[1] in names:
            lines += [] if in_list else [""]
            lines.append(f"- `{match[1]}`: {match[2]}")
            in_list = True
        else:
            in_list = in_list and bool(line)
            lines.append(f"    {line}" if in_list else line)
    return "\n".join(lines)
