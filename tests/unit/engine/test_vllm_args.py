"""What the machine decides about the engine's settings."""

import os
import platform
from pathlib import Path

import pytest

from grm_server.engine.vllm import args as profile
from grm_server.engine.vllm.judge import _whole_blocks
from grm_server.settings import EngineSettings


def test_what_the_user_set_in_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"THP_MEM_ALLOC_ENABLE": "0"})
    monkeypatch.setattr(profile, "on_cpu", lambda: True)
    profile.set_environment(offline=True)
    assert os.environ["THP_MEM_ALLOC_ENABLE"] == "0"
    assert os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_nothing_of_the_cpu_profile_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(profile, "on_cpu", lambda: False)
    profile.set_environment(offline=False)
    assert set(os.environ) == {"VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL", "TORCH_CPP_LOG_LEVEL"}


@pytest.mark.parametrize(
    ("cpu", "settings", "concurrency"),
    [
        (True, EngineSettings(), 64),
        (False, EngineSettings(), 256),
        (True, EngineSettings(max_num_seqs=8), 8),
        (False, EngineSettings(max_num_seqs=8, vllm_args={"max_num_seqs": 9}), 9),
    ],
)
def test_samples_at_once(
    monkeypatch: pytest.MonkeyPatch, cpu: bool, settings: EngineSettings, concurrency: int
) -> None:
    monkeypatch.setattr(profile, "on_cpu", lambda: cpu)
    assert profile.max_concurrent_samples(settings) == concurrency


@pytest.mark.parametrize(
    ("machine", "flags", "computes"),
    [
        ("x86_64", "flags : fpu avx2", False),
        ("x86_64", "flags : fpu avx512f", False),
        ("x86_64", "flags : fpu avx512f avx512_bf16", True),
        ("x86_64", "flags : amx_bf16", True),
        ("aarch64", "Features : fp", True),
    ],
)
def test_bfloat16_only_where_the_cpu_computes_it(
    monkeypatch: pytest.MonkeyPatch, machine: str, flags: str, computes: bool
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(Path, "read_text", lambda _: flags)
    assert profile.computes_bfloat16() is computes


@pytest.mark.parametrize("context", [0, 1, 31, 32, 33, 1000])
@pytest.mark.parametrize("budget", [64, 96, 97, 500])
def test_a_cut_ends_with_a_whole_block_and_loses_less_than_one(budget: int, context: int) -> None:
    fitted = _whole_blocks(budget, context, 32)
    # The last token is drawn but not computed.
    assert (context + fitted - 1) % 32 == 0
    assert budget - 32 < fitted <= budget


def test_small_budgets_are_kept() -> None:
    assert _whole_blocks(16, 7, 32) == 16
    assert _whole_blocks(63, 7, 32) == 63
