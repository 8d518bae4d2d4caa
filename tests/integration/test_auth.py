"""API keys: access and quotas."""

import logging
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from grm_server.app import create_app
from grm_server.engine.fake import FakeEngine
from grm_server.settings import SettingsError, load_settings
from grm_server.telemetry.context import current_request
from tests.integration.conftest import Serve
from tests.integration.judging import PAIR, post
from tests.integration.keys import A, B, basic, bearer, keys_file
from tests.integration.trainers import FAST, all_at_once, slime

WORK = ["/v1/rewards", "/get_reward", "/reward", "/v1/score/evaluation", "/verify", "/compare", "/rerank", "/v1/score"]


@pytest.mark.parametrize("path", WORK)
async def test_nothing_is_judged_or_parsed_without_a_key(serve: Serve, tmp_path: Path, path: str) -> None:
    engine = FakeEngine()
    async with serve(engine, keys_file(tmp_path)) as client:
        for headers in (
            {},
            bearer("wrong"),
            bearer(""),
            {"X-API-Key": ""},
            basic("", ""),
            {"Authorization": "Basic %%"},
        ):
            answer = await client.post(path, content=b"{", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
            # `Basic` would make browsers store the key and send it for other pages.
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/metrics")).status_code == 401, "metrics need a key too"
        answer = await client.get("/metrics", headers=bearer(A))
        assert 'grm_door_refusals_total{code="unauthenticated"} 7.0' in answer.text
    assert engine.calls == []


async def test_every_way_to_send_a_key(serve: Serve, tmp_path: Path) -> None:
    ways = (
        bearer(A),
        {"Authorization": f"bearer  {A} "},
        {"X-API-Key": A},
        basic("anyone", A),
        basic(A, ""),
        {"Authorization": "Digest x", "X-API-Key": A},
    )
    async with serve(FakeEngine(), keys_file(tmp_path)) as client:
        for headers in ways:
            assert (await client.post("/v1/rewards", json=PAIR, headers=headers)).status_code == 200, headers
        # A trainer that can only configure a URL.
        assert (await client.post(f"http://trainer:{A}@localhost/v1/rewards", json=PAIR)).status_code == 200
        assert (await client.post(f"/v1/rewards?api_key={A}", json=PAIR)).status_code == 401, (
            "keys in URLs would end up in logs"
        )


async def test_public_routes_need_no_key(serve: Serve, tmp_path: Path) -> None:
    async with serve(FakeEngine(), keys_file(tmp_path)) as client:
        for path in ("/", "/health", "/health/live", "/health/ready", "/docs", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        for path in (
            "/metrics",
            "/v1/models",
            "/v1/judgements/rw-1",
            "/nothing",
            "/health/ready/",
            "/docs/oauth2-redirect",
        ):
            assert (await client.get(path)).status_code == 401


async def test_the_openapi_document_lists_routes_that_need_a_key(serve: Serve, tmp_path: Path) -> None:
    async with serve(FakeEngine(), keys_file(tmp_path)) as client:
        document = (await client.get("/openapi.json")).json()
        schemes = document["components"]["securitySchemes"]
        assert {(s["type"], s.get("scheme"), s.get("name")) for s in schemes.values()} == {
            ("http", "bearer", None),
            ("apiKey", None, "X-API-Key"),
        }
        for path, item in document["paths"].items():
            for method, operation in item.items():
                asked = (await client.request(method, path)).status_code == 401
                assert (operation.get("security") == [{name: []} for name in schemes]) is asked, path
    async with serve(FakeEngine()) as client:
        assert "security" not in (await client.get("/openapi.json")).text


async def test_keys_from_the_environment(serve: Serve) -> None:
    async with serve(FakeEngine(), f"auth.keys={A}") as client:
        assert (await client.get("/metrics", headers=bearer(A))).status_code == 200
        assert (await client.get("/metrics", headers=bearer(B))).status_code == 401
    async with serve(FakeEngine(), f'auth.keys={{"a": "{A}", "b": "{B}"}}') as client:
        for key in (A, B):
            assert (await client.get("/metrics", headers=bearer(key))).status_code == 200


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("auth.keys=SECRET", r"auth\.keys\.default"),
        ('auth.keys={"a b": "SECRETSECRETSECRETSECRET"}', r"auth\.keys"),
        ("auth.keys_file=/nowhere/keys.toml", r"auth\.keys_file: .*nowhere"),
    ],
)
def test_invalid_keys_stop_the_start(override: str, complaint: str) -> None:
    with pytest.raises(SettingsError, match=complaint) as error:
        create_app(load_settings({}, [override]))
    assert "SECRET" not in str(error.value)


def test_keys_are_not_shown_with_the_settings() -> None:
    settings = load_settings({"GRM_AUTH__KEYS": A}, [])
    assert A not in settings.model_dump_json() + repr(settings) + str(settings)


async def test_keys_are_rotated_without_a_restart(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grm_server.api.middleware.keys.CHECK_S", 0.0)
    setting = keys_file(tmp_path)
    path = tmp_path / "keys.toml"
    async with serve(FakeEngine(), setting) as client:

        async def status(key: str) -> int:
            return (await client.post("/v1/rewards", json=PAIR, headers=bearer(key))).status_code

        assert (await status(A), await status("a-new-key-of-trainer-a")) == (200, 401)
        path.write_text(path.read_text().replace(f'"{A}"', f'["{A}", "a-new-key-of-trainer-a"]'))
        assert (await status(A), await status("a-new-key-of-trainer-a")) == (200, 200)
        path.write_text(path.read_text().replace(f'"{A}", ', ""))
        assert (await status(A), await status("a-new-key-of-trainer-a")) == (401, 200)
        path.write_text("[broken")
        assert (await status("a-new-key-of-trainer-a"), await status(B)) == (200, 200)
        os.unlink(path)
        assert await status(B) == 200


async def test_requests_per_minute(serve: Serve, tmp_path: Path) -> None:
    async with serve(FakeEngine(), keys_file(tmp_path, a="requests_per_minute = 2")) as client:
        answers = [await client.post("/v1/rewards", json=PAIR, headers=bearer(A)) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        error = answers[2].json()["error"]
        assert (error["code"], error["retryable"]) == ("rate_limited", True)
        assert 25 <= int(answers[2].headers["retry-after"]) <= 30
        assert (await client.get("/v1/models", headers=bearer(A))).status_code == 200, "GET requests are not charged"
        assert (await client.post("/v1/rewards", json=PAIR, headers=bearer(B))).status_code == 200


async def test_log_lines_name_the_key(serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tenants: list[str | None] = []

    def note(_: object) -> bool:
        context = current_request.get()
        tenants.append(None if context is None else context.tenant)
        return True

    caplog.set_level("INFO")
    access = logging.getLogger("grm_server.api.access")
    access.addFilter(note)
    try:
        async with serve(FakeEngine(), keys_file(tmp_path), "log_requests=all") as client:
            for headers in (bearer(A), bearer("wrong"), bearer(B)):
                await client.post("/v1/rewards", json=PAIR, headers=headers)
    finally:
        access.removeFilter(note)
    assert tenants == ["trainer-a", None, "trainer-b"]


async def test_samples_per_minute_count_requested_samples(serve: Serve, tmp_path: Path) -> None:
    engine = FakeEngine()
    async with serve(engine, keys_file(tmp_path, a="samples_per_minute = 60")) as client:
        # 3 blocks of at most 8, 8 readings each.
        body = {"query": "Q", "responses": [f"Answer {i}" for i in range(20)], "k": 8}
        answers = [await client.post("/v1/rewards", json=body, headers=bearer(A)) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert 8 <= int(answers[3].headers["retry-after"]) <= 13
        for path, other in (
            ("/reward", slime("Q", "A")),
            ("/rerank", {"query": "Q", "documents": ["A"]}),
            ("/get_reward", {"query": ["A"]}),
        ):
            assert (await client.post(path, json=other, headers=bearer(A))).status_code == 429
    assert engine.started == 72


async def test_a_group_of_single_responses_is_charged_once(serve: Serve, tmp_path: Path) -> None:
    limits = keys_file(tmp_path, a="samples_per_minute = 8")
    async with serve(FakeEngine(), limits, "grouping.idle_s=5", "judge.k=4") as client:

        def group(prompt: str) -> list[Coroutine[Any, Any, httpx.Response]]:
            return [client.post("/reward?n=4", json=slime(prompt, f"A{i}"), headers=bearer(A)) for i in range(4)]

        for prompt, status in (("P", 200), ("Q", 200), ("R", 429)):
            assert {answer.status_code for answer in await all_at_once(group(prompt))} == {status}


async def test_max_k_of_a_key(serve: Serve, tmp_path: Path) -> None:
    async with serve(FakeEngine(), keys_file(tmp_path, a="max_k = 4")) as client:
        client.headers.update(bearer(A))
        refused = await client.post("/v1/rewards", json=PAIR | {"k": 5})
        assert refused.status_code == 422
        error = refused.json()["error"]
        assert (error["code"], error["param"]) == ("limit_exceeded", "k")
        assert "max_k of this API key = 4" in error["message"]
        assert (await post(client, k=4))["k"] == 4
        assert (await post(client, k=None))["k"] == 4, "the default k is limited to max_k"
        client.headers.update(bearer(B))
        assert (await post(client, k=5))["k"] == 5


async def test_callers_share_no_group_and_no_slot(serve: Serve, tmp_path: Path) -> None:
    async with serve(FakeEngine(), keys_file(tmp_path), *FAST) as client:
        answers = await all_at_once(
            [
                client.post("/reward?shape=object", json=slime("P", f"A{i}"), headers=bearer(key))
                for i, key in enumerate((A, A, B))
            ]
        )
        assert [answer.json()["group_size"] for answer in answers] == [2, 2, 1]
        slots = [
            await client.post("/reward", json=slime("P", text, group="g", slot=0), headers=bearer(key))
            for key, text in ((A, "x"), (B, "y"), (A, "y"))
        ]
        assert [answer.status_code for answer in slots] == [200, 200, 409]


async def test_without_keys_every_caller_is_accepted(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        for headers in ({}, bearer("whatever"), {"Authorization": "Basic %%"}):
            assert (await client.post("/v1/rewards", json=PAIR, headers=headers)).status_code == 200
