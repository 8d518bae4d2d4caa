"""The adapters as modules: what importing them imports."""

from __future__ import annotations

import subprocess
import sys


def test_no_trainer_and_no_torch_is_imported_with_the_adapters() -> None:
    code = (
        "import grm_client, grm_client.trl, grm_client.verl, grm_client.swift, grm_client.slime, sys; "
        "print(*{'torch', 'transformers', 'trl', 'verl', 'swift', 'slime', 'openrlhf'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
