"""Writes docs/formats.md from docs/formats.md.in, the docstrings of `grm_server.grm.formats` and the presets.

python docs/make_formats.py      tests/unit/test_formats_page.py fails while the page is out of date
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from grm_server.grm.formats import FormatFile
from grm_server.grm.presets import presets

DOCS = Path(__file__).parent


def page(template: str) -> str:
    """The template with its two placeholders filled in."""
    return template.replace("<!-- fields -->", "\n\n".join(_sections(FormatFile, ""))).replace(
        "<!-- presets -->", "\n".join(_presets())
    )


def _sections(model: type[BaseModel], path: str) -> Iterator[str]:
    """A heading, what the part is and a table of its fields; then the same for its parts."""
    heading = f"### `{path}`" if path else "### The file"
    rows = [
        f"| `{name}` | {_default(field)} | {_line(field.description)} |" for name, field in model.model_fields.items()
    ]
    yield "\n".join([heading, "", _line(model.__doc__), "", "| field | default | meaning |", "|---|---|---|", *rows])
    for name, field in model.model_fields.items():
        part, many = _part(field.annotation)
        if part is not None:
            inner = f"{path}.{name}" if path else name
            yield from _sections(part, f"{inner}[]" if many else inner)


def _part(annotation: object) -> tuple[type[BaseModel] | None, bool]:
    """The model in an annotation such as `X`, `X | None` or `tuple[X, ...]`, and whether there are many."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    parts = [_part(argument)[0] for argument in get_args(annotation)]
    found = next((part for part in parts if part is not None), None)
    return found, found is not None and getattr(annotation, "__origin__", None) is tuple


def _default(field: FieldInfo) -> str:
    default = field.default
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel) or default in ((), {}):
        return ""
    return "none" if default is None else f"`{default!r}`"


def _line(text: str | None) -> str:
    return re.sub(r"\s+", " ", text or "").replace("|", "\\|")


def _presets() -> Iterator[str]:
    yield "| preset | for | about |\n|---|---|---|"
    for file in presets():
        models = ", ".join(f"`{name}`" for name in file.models)
        yield f"| `{file.name}` | {models} | {_line(file.about).strip()} |"


if __name__ == "__main__":
    (DOCS / "formats.md").write_text(page((DOCS / "formats.md.in").read_text("utf-8")), "utf-8")
