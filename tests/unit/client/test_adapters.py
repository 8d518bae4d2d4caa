"""What importing the trainers' adapters imports."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {"torch", "transformers", "trl", "verl", "swift", "slime", "openrlhf", "typer", "grm_server"}


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_adapters_imports_no_trainer_no_torch_and_no_server() -> None:
    adapters = "grm_client, grm_client.trl, grm_client.verl, grm_client.swift, grm_client.slime"
    assert run(f"import {adapters}, sys; print(*{HEAVY!r} & sys.modules.keys())") == ""


def test_rich_is_needed_only_for_progress() -> None:
    code = (
        "import sys; sys.modules['rich'] = None\n"
        "import grm_client.trl, grm_client.data.collect\n"
        "client = grm_client.GRMClient('http://127.0.0.1:1')\n"
        "assert client.score_many([]) == []\n"
        "try: client.score_many([], progress=True)\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    assert "pip install rich" in run(code)
