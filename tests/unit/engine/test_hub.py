"""A model that is not on this machine: whether the hub has it is known before vLLM starts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from grm_server.engine import hub


class Hub(BaseHTTPRequestHandler):
    """Has no model but org/there, and says nothing about org/secret in time."""

    released = threading.Event()

    def do_GET(self) -> None:
        if self.path.endswith("org/secret"):
            self.released.wait(20)
        there = self.path.endswith("org/there")
        body = b'{"id": "org/there"}' if there else b"{}"
        self.send_response(200 if there else 404)
        if not there:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: object) -> None: ...


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    Hub.released.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path)}
    Hub.released.set()
    server.shutdown()
    server.server_close()


def test_a_model_that_the_hub_does_not_have(environment: dict[str, str]) -> None:
    with pytest.raises(OSError, match=r"127\.0\.0\.1 has no model org/none, or it is private.*HF_TOKEN") as caught:
        hub.raise_if_out_of_reach("org/none", environment)
    assert "\n" not in str(caught.value)


def test_other_answers_are_left_to_vllm(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "ANSWER_S", 0.1)
    for name in ("org/there", "org/secret", "not/a/name", "org/file:Q4_K_M"):
        hub.raise_if_out_of_reach(name, environment)
    hub.raise_if_out_of_reach("org/none", environment | {"HF_ENDPOINT": "http://127.0.0.1:9"})


@pytest.mark.parametrize("name", ["/nowhere/model", "./none", "~none"])
def test_a_path_that_does_not_exist(environment: dict[str, str], name: str) -> None:
    with pytest.raises(OSError, match="does not exist"):
        hub.raise_if_out_of_reach(name, environment)


def test_a_file_needs_no_hub(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    hub.raise_if_out_of_reach(str(tmp_path / "model.gguf"), {"HF_ENDPOINT": "https://hub.invalid"})
