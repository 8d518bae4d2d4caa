"""`grm` as a user runs it, in processes of its own."""

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

# The contract tests of trainers run in environments that have no server.
GRM = [os.environ.get("GRM_CLIENT_TEST_PYTHON", sys.executable), "-m", "grm_server"]


def grm(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*GRM, *arguments], input=stdin, capture_output=True, text=True, timeout=60)


@contextmanager
def serving(cache: Path, *arguments: str) -> Iterator[str]:
    """The address of a server with the fake engine, which keeps what it learns in a folder of the test."""
    command = [*GRM, "serve", "--port", "0", "--set", "engine.kind=fake", "--set", f"cache_dir={cache}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        found = next((m for line in process.stdout if (m := re.search(r"ready on (http://\S+)", line))), None)
        assert found, "the server did not start"
        yield found[1]
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode in (0, -signal.SIGINT, 130)


def drawn(url: str) -> int:
    """Samples that the server has drawn so far."""
    counts = (line for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith("grm_samples_total"))
    return int(sum(float(line.rpartition(" ")[2]) for line in counts))


class Process:
    """A server in a process of its own, whose samples take `delay_s`."""

    def __init__(self, cache: Path, delay_s: float, *settings: str, port: int = 0) -> None:
        fake = ("engine.kind=fake", f"engine.fake_sample_s={delay_s}", f"cache_dir={cache}", "stopping.rule=fixed")
        command = [*GRM, "serve", "--port", str(port)]
        for setting in (*fake, *settings):
            command += ["--set", setting]
        self._log = cache / f"log-{time.monotonic_ns()}"
        with self._log.open("w") as log:
            self.popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

    def ready(self) -> str:
        """Its address."""
        assert self.popen.stdout is not None
        found = next((m for line in self.popen.stdout if (m := re.search(r"ready on (http://\S+)", line))), None)
        assert found, self._log.read_text()
        return found[1]

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.popen.send_signal(number)

    def ended(self, within_s: float) -> tuple[int, str]:
        """How, and its log."""
        return self.popen.wait(within_s), self._log.read_text()


@contextmanager
def process(cache: Path, delay_s: float, *settings: str, port: int = 0) -> Iterator[Process]:
    one = Process(cache, delay_s, *settings, port=port)
    try:
        yield one
    finally:
        one.popen.kill()
        one.popen.communicate()
