"""docs/formats.md says what the formats' docstrings and the presets say."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from grm_server.grm import formats
from grm_server.grm.presets import presets

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "formats.md").read_text("utf-8")


def parts() -> Iterator[type[BaseModel]]:
    for value in vars(formats).values():
        if isinstance(value, type) and issubclass(value, formats._Part) and value is not formats._Part:
            yield value


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_formats", DOCS / "make_formats.py")
    assert spec is not None
    assert spec.loader is not None
    make_formats = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_formats)
    assert make_formats.page((DOCS / "formats.md.in").read_text("utf-8")) == PAGE, "run `python docs/make_formats.py`"


@pytest.mark.parametrize("part", list(parts()), ids=lambda part: part.__name__)
def test_every_field_is_on_the_page(part: type[BaseModel]) -> None:
    assert " ".join((part.__doc__ or "").split()).replace("|", "\\|") in PAGE
    for name, field in part.model_fields.items():
        assert f"| `{name}` |" in PAGE
        assert field.description, f"{part.__name__}.{name} has no docstring"


def test_all_presets_and_all_29_judges_are_on_the_page() -> None:
    judges = PAGE.split("## The 29 judges of the survey")[1]
    numbers = [int(line.split("|")[1]) for line in judges.splitlines() if line.startswith("| ") and line[2].isdigit()]
    assert numbers == list(range(1, 30))
    for file in presets():
        assert f"| `{file.name}` |" in PAGE
        assert f"`{file.name}`" in judges or file.name in ("plain", "thinking", "thinking-harmony")
