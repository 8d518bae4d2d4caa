"""ms-swift 4.6.0: the plugin, loaded as ms-swift loads it, and GRPO's reward tensor."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from swift.rewards import orms
from swift.rl_core.data import GRPOSample
from swift.rl_core.grpo_algorithm import compute_rewards_per_func
from swift.utils.utils import import_external_file

import grm_client
from tests.trainers.conftest import TOO_LONG, Direct

PLUGIN = Path(grm_client.__file__).parent / "plugins" / "grm_ms_swift.py"


@pytest.fixture(scope="module")
def reward() -> Any:
    import_external_file(str(PLUGIN))
    return orms["grm"](args=None)


def sample(prompt: str, completion: str, prompt_id: str) -> GRPOSample:
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]
    return GRPOSample(messages=turns, prompt_id=prompt_id, request_id=f"{prompt_id}-{completion}")


def test_the_plugin_folder_shadows_no_module_of_ms_swift(reward: Any) -> None:
    assert sys.path[0] == str(PLUGIN.parent)
    assert sorted(path.name for path in PLUGIN.parent.glob("*.py")) == [
        "__init__.py",
        "grm_ms_swift.py",
        "grm_openrlhf.py",
    ]


def test_compute_rewards_per_func(reward: Any, direct: Direct) -> None:
    samples = [
        sample("p", "a", "0"),
        sample("p", "b", "0"),
        sample("q", "c", "1"),
        sample(TOO_LONG, "d", "2"),
        sample("p", "a", "0"),
    ]
    p = direct([{"role": "user", "content": "p"}], "a", "b")
    q = direct([{"role": "user", "content": "q"}], "c")
    # Twice: each call runs in a new event loop.
    for _ in range(2):
        got = compute_rewards_per_func(samples, [reward, reward], [None, None], torch.device("cpu"))
        expected = torch.tensor([p[0], p[1], q[0], 5.5, p[0]])
        for column in range(2):
            torch.testing.assert_close(got[:, column], expected)
