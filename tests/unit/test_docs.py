"""docs/api.md says what docs/openapi.json and the error classes say."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def make_api() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_api", DOCS / "make_api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_api_page_is_up_to_date(make_api: ModuleType) -> None:
    document = json.loads((DOCS / "openapi.json").read_text("utf-8"))
    expected = make_api.api_page(document, (DOCS / "api.md.in").read_text("utf-8"))

    assert (DOCS / "api.md").read_text("utf-8") == expected, "run `python docs/make_api.py`"


def test_every_field_of_requests_and_answers_is_on_the_page(make_api: ModuleType) -> None:
    schemas = json.loads((DOCS / "openapi.json").read_text("utf-8"))["components"]["schemas"]
    page = (DOCS / "api.md").read_text("utf-8")

    for name in ("RewardsRequest", "RewardsResponse", "SampleOut", "Usage", "Timing"):
        for field in schemas[name]["properties"]:
            assert f"| `{field}` |" in page, f"{name}.{field}"
    assert set(make_api.CORE_REQUEST) <= set(schemas["RewardsRequest"]["properties"])
    assert set(make_api.CORE_ANSWER) <= set(schemas["RewardsResponse"]["properties"])
