"""What web pages can and cannot do with the server."""

import hashlib
import re
from pathlib import Path

import pytest

from grm_server.engine.fake import FakeCall, FakeEngine
from tests.integration.conftest import Serve
from tests.integration.judging import PAIR
from tests.integration.keys import bearer, keys_file

SWAGGER_UI = Path(__file__).parents[2] / "server/grm_server/api/swagger_ui"
EVIL = {"Origin": "https://evil.example"}


async def test_every_response_has_the_headers(serve: Serve, tmp_path: Path) -> None:
    def broken(_: FakeCall) -> str:
        raise ZeroDivisionError

    async with serve(FakeEngine(score=broken), keys_file(tmp_path)) as client:
        key = bearer("key-of-trainer-a-00000001")
        answers = {
            200: await client.get("/health/live"),
            401: await client.post("/v1/rewards"),
            404: await client.get("/nothing", headers=key),
            405: await client.get("/v1/rewards", headers=key),
            415: await client.post("/v1/rewards", content=b"x", headers=key),
            422: await client.post("/v1/rewards", json={}, headers=key),
            500: await client.post("/v1/rewards", json=PAIR, headers=key),
        }
        for status, answer in answers.items():
            assert answer.status_code == status
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
            assert "server" not in answer.headers


async def test_a_stream_has_the_headers_too(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        answer = await client.post("/v1/rewards", json=PAIR, headers={"Accept": "text/event-stream"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"


async def test_the_docs_page_needs_no_other_host(serve: Serve, tmp_path: Path) -> None:
    """Swagger UI, from this server alone and without a key."""
    async with serve(FakeEngine(), keys_file(tmp_path)) as client:
        page = await client.get("/docs")
        assert page.status_code == 200
        assert "https://" not in page.text + page.headers["content-security-policy"]
        loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert sorted(loaded) == ["data:,", "docs/start.js", "docs/swagger-ui-bundle.js", "docs/swagger-ui.css"]
        files = {path: await client.get(f"/{path}") for path in loaded if path.startswith("docs/")}
        assert (await client.get("/openapi.json")).status_code == 200
        assert (await client.get("/docs/other.js", headers=bearer("key-of-trainer-a-00000001"))).status_code == 404
    assert all(file.status_code == 200 for file in files.values())
    assert "SwaggerUIBundle({" in files["docs/start.js"].text
    assert files["docs/swagger-ui.css"].headers["content-type"].startswith("text/css")
    assert files["docs/swagger-ui-bundle.js"].headers["content-type"].startswith("text/javascript")
    policy = page.headers["content-security-policy"]
    assert "script-src 'self';" in policy, "no inline scripts"
    assert "connect-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    sums = (SWAGGER_UI / "README.md").read_text("utf-8")
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        assert f"{hashlib.sha256(files[f'docs/{name}'].content).hexdigest()}  {name}" in sums


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD"])
async def test_there_are_no_cors_headers(serve: Serve, method: str) -> None:
    asks = EVIL | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    async with serve(FakeEngine()) as client:
        for path in ("/v1/rewards", "/metrics", "/health/live", "/nothing"):
            answer = await client.request(method, path, headers=asks, json=PAIR if method == "POST" else None)
            assert not [name for name in answer.headers if name.startswith("access-control-")]
            if method == "OPTIONS":
                assert answer.status_code in (404, 405), "a preflight gets nothing"


@pytest.mark.parametrize(
    ("host", "ours"),
    [
        ("localhost", True),
        ("LOCALHOST:8000", True),
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("192.168.1.5", True),
        ("grm.localhost:8000", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("evil.example@127.0.0.1", False),
        ("[evil.example]", False),
    ],
)
async def test_dns_rebinding_is_refused(serve: Serve, host: str, ours: bool) -> None:
    async with serve(FakeEngine()) as client:
        answer = await client.post("/v1/rewards", json=PAIR, headers={"Host": host})
        assert answer.status_code == (200 if ours else 421)
        if not ours:
            assert answer.json()["error"]["code"] == "wrong_host"
            assert (await client.get("/metrics", headers={"Host": host})).status_code == 421


async def test_allowed_hosts(serve: Serve, tmp_path: Path) -> None:
    async with serve(FakeEngine(), 'http.allowed_hosts=["grm.internal"]') as client:
        for host, status in (("grm.internal:80", 200), ("GRM.internal", 200), ("other.internal", 421)):
            assert (await client.get("/health/live", headers={"Host": host})).status_code == status
    # With keys, or on an open server, any name is accepted.
    for settings in ((keys_file(tmp_path),), ("http.host=0.0.0.0", "auth.open=true")):
        async with serve(FakeEngine(), *settings) as client:
            assert (await client.get("/health/live", headers={"Host": "other"})).status_code == 200
