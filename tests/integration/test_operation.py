"""Health, models, metrics, the OpenAPI document and templates, around a fake engine."""

import json
from pathlib import Path

import pytest

from grm_server.app import create_app
from grm_server.engine.fake import FakeEngine
from grm_server.errors import GenerationFailed
from grm_server.settings import Settings, SettingsError, as_markdown, load_settings
from tests.integration.conftest import Serve
from tests.integration.counting import counters

ROOT = Path(__file__).parents[2]


async def test_metrics_count_requests_samples_failures_tokens_and_time(serve: Serve) -> None:
    body = {"query": "Q", "responses": ["A.", "B."], "k": 4}
    async with serve(FakeEngine(["no", GenerationFailed("x"), "4, 5}", "4, 5}"])) as client:
        await client.post("/v1/rewards", json=body)
        await client.post("/v1/rewards", json=body | {"k": 1000})
        seen = await counters(client)
    assert seen['grm_requests_total{code="ok"}'] == 1
    assert seen['grm_requests_total{code="limit_exceeded"}'] == 1
    assert seen['grm_samples_total{outcome="valid"}'] == 2
    assert seen['grm_samples_total{outcome="no_scores"}'] == 1
    assert seen['grm_samples_total{outcome="engine_error"}'] == 1
    assert seen["grm_responses_total"] == 2
    assert seen['grm_tokens_total{kind="completion"}'] > 0
    assert seen['grm_stage_seconds_count{stage="queue"}'] == 1
    assert seen['grm_stage_seconds_count{stage="generate"}'] == 1
    assert seen['grm_stage_seconds_count{stage="total"}'] == 1
    assert seen["grm_requests_in_flight"] == 0


async def test_models(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        card = (await client.get("/v1/models")).json()["data"][0]
    assert (card["id"], card["object"], card["max_model_len"]) == ("fake", "model", 8192)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("GET", "/v1/rewards", 405)])
async def test_errors_of_the_framework_have_the_same_shape(serve: Serve, method: str, path: str, status: int) -> None:
    async with serve(FakeEngine()) as client:
        response = await client.request(method, path)
    assert response.status_code == status
    assert set(response.json()["error"]) == {"code", "message", "param", "retryable", "details"}


def test_the_committed_openapi_document_is_the_served_one() -> None:
    committed = json.loads((ROOT / "docs" / "openapi.json").read_text())
    assert create_app(Settings()).openapi() == committed, "run `make openapi` and read the difference"


async def test_a_custom_template(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("MINE {{ conversation }} {{ reference or '' }} {{ principles or '' }} {{ responses }}")
    engine = FakeEngine()
    async with serve(engine, f"judge.template={path}") as client:
        await client.post("/v1/rewards", json={"query": "Q", "responses": ["A."]})
    assert engine.calls[0][0].prompt.startswith("MINE Q ")


@pytest.mark.parametrize("content", [None, "{{ conversation }}", "{% if"])
def test_an_invalid_template_stops_the_start(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "broken.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=r"judge\.template"):
        create_app(load_settings({}, [f"judge.template={path}"]))


@pytest.mark.parametrize("override", ["judge.k=65", "judge.max_critique_tokens=9000"])
def test_defaults_over_the_limit_stop_the_start(override: str) -> None:
    with pytest.raises(SettingsError, match=r"more than a request may ask for"):
        create_app(load_settings({}, [override]))


def test_the_default_budget_follows_a_lower_limit() -> None:
    settings = load_settings({}, ["limits.max_critique_tokens=100", "engine.model=org/judge"])
    assert create_app(settings).state.service.policy.max_critique_tokens == 100


def test_the_committed_table_of_settings_is_current() -> None:
    assert as_markdown() in (ROOT / "docs" / "settings.md").read_text(), "put the output of `grm settings` there"
