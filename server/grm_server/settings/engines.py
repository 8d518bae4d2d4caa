"""Where tokens and ratings come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from grm_server.settings.section import Section


class EngineSettings(Section):
    kind: Literal["vllm", "fake"] = "vllm"
    """`fake` invents scores from a hash; it is for tests and for measuring the layer around the engine."""
    model: str = "bundled"
    """`bundled` (SmolLM2-135M-Instruct, for trying it out), or any path or hub name that vLLM takes."""
    served_name: str | None = None
    """Name in answers and in /v1/models. None: the last part of `model`."""
    dtype: str = "auto"
    """`auto`: the checkpoint's; float32 on an x86 CPU without bfloat16 instructions, where that is twice as fast."""
    max_model_len: int | None = Field(None, ge=128)
    """Context length in tokens. None: the model's, at most 8192 on a CPU."""
    max_num_seqs: int | None = Field(None, ge=1)
    """Samples that the engine works on at once. None: 256, on a CPU 64."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of GPU memory for weights and KV cache."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that share one copy of the model."""
    quantization: str | None = None
    """vLLM's name of a quantization method. None: what the checkpoint says."""
    lora: str | None = None
    """Path or hub name of a LoRA adapter that every sample uses."""
    fake_sample_s: float = Field(0, ge=0)
    """`fake`: seconds that it takes for a sample, of which it writes `max_num_seqs` at once."""
    cpu_kv_cache_gib: int = Field(1, ge=1)
    """KV cache of the CPU engine, whole GiB. Each costs up to 2.5 s at start; under load 4 is a good choice."""
    warm_up: bool = True
    """Draw a few samples before the server is ready: the first request would otherwise be slow."""
    vllm_args: dict[str, Any] = {}
    """Any other field of vLLM's `AsyncEngineArgs`, as JSON. Wins over all of the above."""


class MetaRMSettings(Section):
    kind: Literal["none", "vllm", "remote", "fake"] = "none"
    """Where samples are rated: nowhere, by a second engine in this process, by another server; `fake`: by a hash."""
    model: str | None = None
    """A sequence-classification checkpoint: any path or hub name that vLLM takes, or `bundled`, where this installation
    has one. `remote`: as that server calls it."""
    served_name: str | None = None
    """Name in answers and in /v1/models. None: the last part of `model`."""
    url: str | None = None
    """`remote`: the whole address of vLLM's `/classify` or `/pooling`, or of SGLang's `/classify`."""
    api: Literal["vllm", "sglang"] = "vllm"
    """`remote`: whose requests that server understands."""
    tokenizer: str | None = None
    """`remote`: path or hub name of the tokenizer, whose tokens are sent. None: `model`."""
    failure: Literal["error", "vote"] = "error"
    """What a request gets while the meta RM fails, if it does not say: an error, or the plain vote, marked as such."""
    p0: float = Field(0.5, ge=0, lt=1)
    """`meta_hinge`: the probability of being right at which a sample's vote is worth nothing."""
    platt: tuple[float, float] | None = None
    """a, b of the probability sigmoid(a * logit + b). None: the checkpoint's card (`meta_rm.json`), or 1, 0."""
    allow_weak: bool = False
    """Let a meta RM that does not pass its card's gate guide requests that do not ask for it."""
    template: Path | None = None
    """A file with a prompt template of your own (Jinja). None: the one that the package ships."""
    timeout_s: float = Field(60, gt=0)
    """A rating that takes longer has failed."""
    dtype: str = "auto"
    """As `engine.dtype`."""
    max_model_len: int | None = Field(None, ge=128)
    """Context length in tokens. None: the model's, at most 8192 on a CPU."""
    max_num_seqs: int = Field(32, ge=1)
    """Samples that are rated at once."""
    gpu_memory_utilization: float = Field(0.3, gt=0, le=1)
    """Share of GPU memory for weights and KV cache. With `engine.gpu_memory_utilization` at most 0.95."""
    cpu_kv_cache_gib: int = Field(1, ge=1)
    """KV cache on a CPU, whole GiB."""
    vllm_args: dict[str, Any] = {}
    """As `engine.vllm_args`."""
