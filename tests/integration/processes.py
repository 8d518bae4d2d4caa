"""The `grm` command, in this process and in processes of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

# The trainers' tests run in environments without a server.
GRM = [os.environ.get("GRM_CLIENT_TEST_PYTHON", sys.executable), "-m", "grm_server"]
READY = re.compile(r"ready on (http://\S+)")


def grm(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """`grm` as a user runs it. Takes a second, most of it for imports."""
    return subprocess.run([*GRM, *arguments], input=stdin, capture_output=True, text=True, timeout=60)


def grm_here(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    """`grm` without a process of its own. Not for `serve`, which takes over signals, logging and the collector."""
    from typer.testing import CliRunner

    from grm_server.cli import app

    done = CliRunner().invoke(app, arguments, input=stdin, catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


@contextmanager
def serving(cache: Path, *arguments: str) -> Iterator[str]:
    """The address of a server with the fake engine. What it learns goes to `cache`."""
    command = [*GRM, "serve", "--port", "0", "--set", "engine.kind=fake", "--set", f"cache_dir={cache}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        url = _ready_url(process)
        assert url, "the server did not start"
        yield url
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode in (0, -signal.SIGINT, 130)


def _ready_url(process: subprocess.Popen[str]) -> str | None:
    """None where the server ended before it was ready."""
    assert process.stdout is not None
    return next((match[1] for line in process.stdout if (match := READY.search(line))), None)


def drawn(url: str) -> int:
    """Samples that the server has drawn so far."""
    counts = (line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith("grm_samples_total"))
    return int(sum(float(line.rpartition(" ")[2]) for line in counts))


class Process:
    """A server with the fake engine, whose samples take `delay_s`, and with its log."""

    def __init__(
        self, cache: Path, delay_s: float, *settings: str, port: int = 0, open_files: int | None = None
    ) -> None:
        """open_files: the hard limit of open files."""
        fake = ("engine.kind=fake", f"engine.fake_sample_s={delay_s}", f"cache_dir={cache}", "stopping.rule=fixed")
        command = [*GRM, "serve", "--port", str(port)]
        for setting in (*fake, *settings):
            command += ["--set", setting]
        if open_files is not None:
            command = ["sh", "-c", f'ulimit -n {open_files} && exec "$0" "$@"', *command]
        self._log = cache / f"log-{time.monotonic_ns()}"
        with self._log.open("w") as log:
            self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

    def ready(self) -> str:
        """Its address."""
        url = _ready_url(self.popen)
        assert url, self._log.read_text()
        return url

    def log(self) -> str:
        return self._log.read_text()

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.popen.send_signal(number)

    def ended(self, within_s: float) -> tuple[int, str]:
        """Exit code and log."""
        return self.popen.wait(within_s), self._log.read_text()


@contextmanager
def process(
    cache: Path, delay_s: float, *settings: str, port: int = 0, open_files: int | None = None
) -> Iterator[Process]:
    one = Process(cache, delay_s, *settings, port=port, open_files=open_files)
    try:
        yield one
    finally:
        one.popen.kill()
        one.popen.communicate()
