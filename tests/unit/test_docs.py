"""docs/api.md says what docs/openapi.json and the error classes say; the pages name files and modules that exist."""

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ROOMS = (ROOT, ROOT / "server", ROOT / "server" / "grm_server", ROOT / "clients")
"""Where the path of a file that a page names may begin."""

PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_files_that_exist(page: Path) -> None:
    named = re.findall(r"`((?:[\w-]+/)+[\w.-]+\.(?:py|txt|md|toml|json))`", page.read_text("utf-8"))

    assert [name for name in named if not any((room / name).exists() for room in ROOMS)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_benchmarks_that_exist(page: Path) -> None:
    named = re.findall(r"\b((?:benchmarks|studies)(?:\.[a-z_]+)+)", page.read_text("utf-8").split("### Changed")[0])

    assert [name for name in named if not (ROOT / f"{name.replace('.', '/')}.py").exists()] == []


def test_no_text_installs_this_project_from_an_index() -> None:
    """It is on none. `pip install 'grm-server[cpu]'` fails, and a foreign package is called `grm`."""
    sources = [path for room in ("server", "clients") for path in (ROOT / room).rglob("*.py")]
    texts = {path: path.read_text("utf-8") for path in [*sources, *PAGES] if path.name != "CHANGELOG.md"}

    assert [path for path, text in texts.items() if re.search(r"install [^\n./`]*grm[-_\[ '\"]", text)] == []


def test_compose_passes_settings_and_the_hubs_token_to_every_service() -> None:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")

    access = text.split("x-access:")[1].split("services:")[0]
    assert re.findall(r"^  (HF_\w+):$", access, re.MULTILINE) == ["HF_TOKEN", "HF_HUB_OFFLINE"]
    services = text.count("    build:")
    assert services == text.count("<<: *access") == text.count("env_file: [{path: grm.env, required: false}]")
