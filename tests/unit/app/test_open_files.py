"""The limit of open files, in processes of their own."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import logging, resource
logging.basicConfig(level=logging.INFO)
from grm_server.app.run import raise_open_file_limit
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(64, hard), hard))
{patch}
raise_open_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
"""
REFUSE = """
def refuse(*_):
    raise ValueError("not allowed")
resource.setrlimit = refuse
"""


def run(patch: str) -> tuple[str, str]:
    done = subprocess.run([sys.executable, "-c", CODE.format(patch=patch)], capture_output=True, text=True, check=True)
    return done.stdout.strip(), done.stderr


def test_the_soft_limit_becomes_the_hard_one() -> None:
    raised, log = run("")
    assert raised == "True"
    assert "raised the limit of open files from 64" in log


def test_a_limit_that_cannot_be_raised_is_logged() -> None:
    raised, log = run(REFUSE)
    assert raised == "False"
    assert "could not raise the limit of open files (64); raise it with `ulimit -n`" in log
