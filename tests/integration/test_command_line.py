"""The `grm` command as a user runs it, against a `grm serve` process with the fake engine."""

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.integration.processes import GRM, grm, grm_here, serving


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    path = tmp_path / "requests.jsonl"
    rows = [{"id": i, "query": f"Question {i}?", "responses": ["A.", "B."], "k": 2} for i in range(40)]
    lines = [json.dumps(row) for row in rows]
    lines[7] = "this is no JSON"
    lines[9] = json.dumps({"id": 9, "query": "Q", "responses": []})
    path.write_text("\n".join(lines) + "\n")
    return path


def test_score_a_file(url: str, requests: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    done = grm("score", str(requests), "-o", str(out), "--url", url, "--seed", "1")
    assert done.returncode == 1
    assert "38 scored, 2 failed: 76 samples" in done.stderr
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["line"] for row in rows] == list(range(1, 41))
    assert "error" in rows[7]
    assert "8" in rows[7]["error"]["message"]
    assert rows[9]["error"]["param"] == "responses"
    assert all(row["id"] == row["line"] - 1 and len(row["rewards"]) == 2 for row in rows if "error" not in row)
    assert {row["seed"] for row in rows if "error" not in row} == {1}

    whole = out.read_bytes()
    out.write_bytes(whole[: len(whole) * 2 // 3])
    again = grm("score", str(requests), "-o", str(out), "--url", url, "--seed", "1", "--resume")
    assert " kept (judge fake)" in again.stderr
    resumed = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["line"] for row in resumed] == list(range(1, 41))
    assert [row.get("rewards") for row in resumed] == [row.get("rewards") for row in rows]


def test_score_standard_input_to_standard_output(url: str) -> None:
    done = grm_here("score", "-", "--url", url, "-o", "/dev/stdout", stdin='{"query": "Q", "responses": ["A."]}\n')
    assert done.returncode != 0, "an existing file is never overwritten"
    done = grm_here("score", "-", "--url", url, stdin='{"query": "Q", "responses": ["A."]}\n')
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["rewards"]) == 1


def test_score_refuses_arguments_that_would_lose_data(url: str, requests: Path, tmp_path: Path) -> None:
    assert "the file of requests itself" in grm_here("score", str(requests), "-o", str(requests), "--resume").stderr
    other = tmp_path / "mine.txt"
    other.write_text("precious\n")
    assert "exists" in grm_here("score", str(requests), "-o", str(other), "--url", url).stderr
    assert grm_here("score", str(requests), "-o", str(other), "--url", url, "--resume").returncode == 2
    assert other.read_text() == "precious\n"
    assert "--resume needs --out" in grm_here("score", str(requests), "--resume").stderr


def test_score_without_a_server_prints_advice(requests: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        done = grm_here("score", str(requests), "--url", f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert done.returncode == 2
    assert "grm serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_demo(url: str) -> None:
    done = grm_here("demo", "examples", "--url", url)
    assert done.returncode == 0, done.stderr
    for text in ("1-two-answers.json", "2-reference.json", "3-conversation.json", "best", "Correctness (weight 1)"):
        assert text in done.stdout


def test_demo_with_a_question_of_your_own(url: str) -> None:
    done = grm_here("demo", "--query", "Why?", "--response", "Because.", "--response", "Ask later.", "--url", url)
    assert done.returncode == 0, done.stderr
    for text in ("your question", "Why?", "Because.", "Ask later.", "best"):
        assert text in done.stdout
    for half in (["--query", "Why?"], ["--response", "Because."]):
        assert "belong together" in grm_here("demo", *half, "--url", url).stderr
    assert "--query" in grm_here("demo", "/nowhere", "--url", url).stderr


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("engine.modle=x", r"engine\.modle: there is no such setting; did you mean engine\.model\?"),
        ("engin.kind=x", r"did you mean engine(\.kind)?\?"),
        ("wholly.other=x", "`grm settings` lists all settings"),
        ("nonsense", "section.name=value"),
        ("auth.keys=short-SECRET", r"auth\.keys\.default: .*16"),
    ],
)
def test_serve_names_the_wrong_setting(setting: str, complaint: str) -> None:
    # Settings are read before anything else, so this needs no process of its own.
    done = grm_here("serve", "--port", "0", "--set", "engine.kind=fake", "--set", setting)
    assert done.returncode == 2
    assert re.search(complaint, done.stderr)
    assert "SECRET" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--template", "/nowhere/mine.txt"], r"judge\.template.*nowhere"),
        (["--host", "999.1.1.1"], "cannot listen on"),
        (["--host", "0.0.0.0"], r"no API keys.*GRM_AUTH__KEYS.*127\.0\.0\.1.*auth\.open=true"),
        (["--host", "::"], "no API keys"),
    ],
)
def test_serve_names_what_keeps_it_from_starting(arguments: list[str], complaint: str) -> None:
    done = grm("serve", "--port", "0", "--set", "engine.kind=fake", *arguments)
    assert done.returncode == 2
    assert re.search(complaint, done.stderr)
    assert "Traceback" not in done.stderr


def test_a_new_key_is_required_and_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = grm_here("new-key", "trainer-a")
    key = made.stderr.strip()
    assert key not in made.stdout
    keys = tmp_path / "keys.toml"
    keys.write_text(made.stdout)
    row = '{"query": "Q", "responses": ["A."]}\n'
    with serving(tmp_path, "--host", "0.0.0.0", "--set", f"auth.keys_file={keys}") as url:
        refused = grm_here("score", "-", "--url", url, stdin=row)
        monkeypatch.setenv("GRM_CLIENT_API_KEY", key)
        done = grm_here("score", "-", "--url", url, stdin=row)
    assert "unauthenticated" in refused.stdout + refused.stderr
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("settings", [["--host", "0.0.0.0", "--set", "auth.open=true"], ["--host", "::1"]])
def test_servers_that_need_no_key(tmp_path: Path, settings: list[str]) -> None:
    with serving(tmp_path, *settings) as url:
        assert httpx.get(f"{url}/v1/models").status_code == 200


def test_an_unwritable_cache_is_reported_in_one_line_with_advice() -> None:
    done = grm("serve", "--port", "0", "--model", "bundled", "--set", "cache_dir=/dev/null/nowhere")
    assert done.returncode == 2
    assert re.search(r"^grm: \S+ could not be prepared in /dev/null/nowhere: .*cache_dir=PATH$", done.stderr, re.M)
    assert "Traceback" not in done.stderr


def test_an_engine_that_does_not_start_is_reported_in_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In place of the real package, whose import takes 5 s.
    loader = "class AutoTokenizer:\n    def from_pretrained(name):\n        raise OSError(f'{name}:\\nno tokenizer')\n"
    (tmp_path / "transformers.py").write_text(loader)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    remote = ("kind=remote", "url=http://127.0.0.1:9/classify", "model=m", "tokenizer=mine")
    overrides = [part for setting in remote for part in ("--set", f"meta_rm.{setting}")]
    done = grm("serve", "--port", "0", "--set", "engine.kind=fake", *overrides)
    assert done.returncode == 2
    assert done.stderr.endswith("\ngrm: the engine did not start: OSError: mine: no tokenizer\n")


def test_an_internal_error_of_a_real_server_logs_no_prompt(tmp_path: Path) -> None:
    template = tmp_path / "breaks.txt"
    template.write_text(
        "{{ conversation }} {{ reference or '' }} {{ principles or '' }} {{ responses }}"
        "{{ (conversation | int) // 0 if conversation.startswith('SECRET') }}"
    )
    quiet = ["--set", "engine.kind=fake", "--set", f"cache_dir={tmp_path}", "--template", str(template)]
    command = [*GRM, "serve", "--port", "0", *quiet]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = next(m[1] for line in process.stdout if (m := re.search(r"ready on (http://\S+)", line)))
        response = httpx.post(f"{url}/v1/rewards", json={"query": "SECRET", "responses": ["SECRET"]})
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=30)
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert "ZeroDivisionError" in log
    assert "SECRET" not in response.text + log


def test_serve_on_a_port_in_use(url: str) -> None:
    done = grm("serve", "--port", url.rpartition(":")[2], "--set", "engine.kind=fake")
    assert done.returncode == 2
    assert "--port" in done.stderr
