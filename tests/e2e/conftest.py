"""A real server, started as a user starts it, with the real engine and the bundled model."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.checkpoints import make_checkpoint

START_S = 240
LOG_LINES = 100


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen[str]
    client: httpx.Client
    log: list[str] = field(repr=False)
    """Its output so far, by line."""


def start(*overrides: str) -> Iterator[Server]:
    """`grm serve` on a free port, until the generator is closed."""
    command = [sys.executable, "-m", "grm_server", "serve", "--port", "0", *overrides]
    # Priors learned in tests must not stay in the user's cache.
    priors = Path(tempfile.mkdtemp()) / "priors.json"
    command += ["--set", f"stopping.priors={priors}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRM_")}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True
    )
    assert process.stdout is not None
    killer = threading.Timer(START_S, process.kill)
    killer.start()
    log: list[str] = []
    # A full pipe would block the server.
    drain = threading.Thread(target=log.extend, args=(process.stdout,))
    try:
        url = _ready_url(process, log)
        killer.cancel()
        drain.start()
        with httpx.Client(base_url=url, timeout=300) as client:
            yield Server(url, process, client, log)
    finally:
        killer.cancel()
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        finally:
            # Even if the server has ended: an engine that outlived it would keep the pipe open.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if drain.is_alive():
                drain.join()
            process.stdout.close()


def _ready_url(process: subprocess.Popen[str], log: list[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        log.append(line)
        if ready := re.search(r"ready on (http://\S+)", line):
            return ready[1]
    raise RuntimeError("the server did not start:\n" + "".join(log[-LOG_LINES:]))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Function, call: pytest.CallInfo[None]) -> Any:
    """A failing test shows the last lines of its servers' logs."""
    report = yield
    if report.failed:
        for server in item.funcargs.values():
            if isinstance(server, Server):
                report.sections.append((f"log of {server.url}", "".join(server.log[-LOG_LINES:])))
    return report


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    yield from start()


@pytest.fixture(scope="session")
def server_to_kill() -> Iterator[Server]:
    """A server whose engine the tests kill and stop."""
    yield from start("--set", "supervision.stall_s=8", "--set", "supervision.settled_s=1")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Makes a tiny checkpoint of a public model: `tiny_checkpoint("qwen3", {"</think>": 0.05})`."""

    def make(name: str, likely: Mapping[str, float] | None = None) -> Path:
        folder = tmp_path_factory.mktemp(name)
        make_checkpoint(name, folder, likely)
        return folder

    return make


@pytest.fixture(scope="session")
def model_path() -> Path:
    """The bundled model, prepared as the server prepares it."""
    from grm_server.engine.bundled import bundled_model
    from grm_server.settings import Settings

    return bundled_model(Settings().cache_dir)
