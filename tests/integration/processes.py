"""`grm` as a user runs it, in processes of its own."""

import os
import re
import signal
import subprocess
import sys
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
