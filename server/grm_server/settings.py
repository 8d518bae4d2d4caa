"""Every setting of the server, in one frozen object, read once by the composition root.

From the environment: prefix `GRM_`, sections joined by two underscores (`GRM_ENGINE__DTYPE=float32`). From the command
line: `grm serve --set engine.dtype=float32`, which wins. Unknown names are refused. What a request may choose (k,
temperature, seed) is a request field; here are its default and its maximum.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

ENV_PREFIX = "GRM_"
# The client's variables, and what Kubernetes sets for a service called grm.
_NOT_OURS = re.compile(r"GRM_(CLIENT_|SERVICE_|PORT(_|$))")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class HTTPSettings(Section):
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback exposes an unauthenticated server."""
    port: int = Field(8000, ge=0, le=65535)
    """0 lets the system choose."""
    max_body_bytes: int = Field(4 * 2**20, ge=1024)
    """Larger request bodies are refused with 413."""


class JudgeSettings(Section):
    k: int = Field(16, ge=1)
    """Readings of each response, at most, of a request that does not say."""
    temperature: float = Field(0.5, gt=0, le=2)
    """Sampling temperature of a request that does not say. The paper's voting results use 0.5."""
    max_critique_tokens: int | None = Field(None, ge=16)
    """Budget of principles and critique of a request that does not say. None: 1024, or 192 for the bundled model."""
    aggregate: Literal["mean", "winsorised", "vote", "borda", "meta_hinge", "meta_top"] = "mean"
    """How samples are added up in a request that does not say. The last two need a meta RM."""
    list_size: int = Field(8, ge=2)
    """Responses that one sample judges at most; longer lists are judged in balanced blocks."""
    template: Path | None = None
    """A file with a prompt template of your own (Jinja). None: the one that the package ships."""


class StoppingSettings(Section):
    rule: Literal["fixed", "decided", "strict", "precision"] = "decided"
    """When to stop before k, in a request that does not say."""
    gamma: float = Field(0.05, gt=0, lt=1)
    """`decided`: stop when k samples would decide otherwise with at most this predicted probability."""
    delta: float = Field(0.05, gt=0, lt=1)
    """`strict`: stop when the best response is certain up to this probability of error."""
    se: float = Field(0.4, gt=0)
    """`precision`: stop when no reward's standard error is above this."""
    speculate_below: int = Field(8, ge=0)
    """While the engine has fewer samples than this to write, a request's next wave begins before it is known to be
    needed. 0: never."""
    audit_share: float = Field(0.015, ge=0, le=1)
    """Share of requests that, when `decided` stops them, are drawn to full k in the background to see if that was
    right."""
    priors: Path | None = None
    """Where what traffic teaches is kept. None: priors.json in `cache_dir`."""
    calibration: Path | None = None
    """What `grm calibrate` wrote. With it answers have `p_best_label`."""


class LimitSettings(Section):
    max_responses: int = Field(64, ge=1)
    """Responses a request may hold."""
    max_k: int = Field(64, ge=1)
    """Readings of each response a request may ask for."""
    max_samples: int = Field(512, ge=1)
    """Samples a request may ask for: k times the blocks that its responses make."""
    max_critique_tokens: int = Field(8192, ge=16)
    """Token budget a request may ask for."""
    max_deadline_s: float = Field(600, gt=0)
    """Seconds a request may take, and takes at most if it does not say."""


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
    max_num_seqs: int = Field(128, ge=1)
    """Samples that the engine works on at once."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of GPU memory for weights and KV cache."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that share one copy of the model."""
    quantization: str | None = None
    """vLLM's name of a quantization method. None: what the checkpoint says."""
    lora: str | None = None
    """Path or hub name of a LoRA adapter that every sample uses."""
    cpu_kv_cache_gib: int = Field(1, ge=1)
    """KV cache of the CPU engine, whole GiB. Each costs up to 2.5 s at start; under load 4 is a good choice."""
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


class GroupingSettings(Section):
    n: int | None = Field(None, ge=1)
    """Responses to one prompt that a trainer sends one by one and that are judged together, if its URL (`?n=8`) does
    not say. None: unknown; a group then closes when nobody came for a while."""
    idle_s: float = Field(2.0, gt=0)
    """A group that nobody joined for so long is judged as it is."""
    window_s: float = Field(30.0, gt=0)
    """So long the first of a group waits for the others at most; less where its trainer's timeout is near."""
    max_waiting: int = Field(4096, ge=1)
    """Responses that may wait in open groups. With one more, the group that waits the longest is judged."""
    ttl_s: float = Field(1800, gt=0)
    """So long a reward is remembered, so that a retry gets it."""
    max_judged: int = Field(65536, ge=1)
    """Rewards that are remembered."""


class JudgementSettings(Section):
    ttl_s: float = Field(3600, gt=0)
    """So long `GET /v1/judgements/{id}` returns a judgement."""
    max_mib: int = Field(64, ge=1)
    """Text of judgements that is kept, MiB; the oldest go first."""


RewardScale = Literal["raw", "unit", "centered"]


class OpenRLHFSettings(Section):
    reward_scale: RewardScale = "raw"
    """`raw`: 1 to 10; `unit`: 0 to 1; `centered`: raw, less the mean of the responses that were judged together."""
    failure: Literal["neutral", "error"] = "neutral"
    """What a response gets that could not be judged: the middle of the scale, or an error, which ends training."""
    timeout_s: float = Field(180, gt=0)
    """Seconds after which the trainer gives up a request; it is a constant of OpenRLHF."""


class SlimeSettings(Section):
    reward_scale: RewardScale = "raw"
    """As `trainers.openrlhf.reward_scale`."""
    failure: Literal["neutral", "none", "error"] = "neutral"
    """As `trainers.openrlhf.failure`; `none`: null, for a trainer that was taught to skip such a sample."""
    timeout_s: float = Field(110, gt=0)
    """slime gives up a request after 120 s, which include the wait for one of its 64 connections, and tries again."""


class LlamaFactorySettings(Section):
    reward_scale: RewardScale = "raw"
    """As `trainers.openrlhf.reward_scale`."""
    failure: Literal["neutral", "error"] = "neutral"
    """As `trainers.openrlhf.failure`."""
    timeout_s: float | None = Field(None, gt=0)
    """LLaMA-Factory never gives up."""


class NemoGymSettings(Section):
    reward_scale: RewardScale = "raw"
    """As `trainers.openrlhf.reward_scale`."""
    timeout_s: float | None = Field(None, gt=0)
    """NeMo-Gym never gives up."""


class ChatSettings(Section):
    reward_scale: RewardScale = "raw"
    """As `trainers.openrlhf.reward_scale`."""
    timeout_s: float | None = Field(None, gt=0)
    """Seconds after which clients give up."""


class RerankSettings(Section):
    reward_scale: RewardScale = "unit"
    """As `trainers.openrlhf.reward_scale`. Relevance is 0 to 1 elsewhere."""


class RewardAnythingSettings(Section):
    reward_scale: RewardScale = "raw"
    """As `trainers.openrlhf.reward_scale`."""


class TrainerSettings(Section):
    stop: Literal["fixed", "decided", "strict", "precision"] | None = "fixed"
    """When fewer than k readings are enough, if a trainer's URL does not say. `fixed` reads every response equally
    often and depends on nothing that traffic taught. None: `stopping.rule`."""
    openrlhf: OpenRLHFSettings = OpenRLHFSettings()
    slime: SlimeSettings = SlimeSettings()
    llama_factory: LlamaFactorySettings = LlamaFactorySettings()
    nemo_gym: NemoGymSettings = NemoGymSettings()
    chat: ChatSettings = ChatSettings()
    rerank: RerankSettings = RerankSettings()
    reward_anything: RewardAnythingSettings = RewardAnythingSettings()


class Settings(Section):
    http: HTTPSettings = HTTPSettings()
    judge: JudgeSettings = JudgeSettings()
    stopping: StoppingSettings = StoppingSettings()
    limits: LimitSettings = LimitSettings()
    engine: EngineSettings = EngineSettings()
    meta_rm: MetaRMSettings = MetaRMSettings()
    grouping: GroupingSettings = GroupingSettings()
    judgements: JudgementSettings = JudgementSettings()
    trainers: TrainerSettings = TrainerSettings()
    cache_dir: Path = Path("~/.cache/grm-server")
    """Where the bundled model is kept once it is prepared, and what traffic teaches."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Of this server. vLLM's own is VLLM_LOGGING_LEVEL, ERROR unless you set it."""


class SettingsError(ValueError):
    """A setting has an unknown name or a wrong value; the message names it."""


def load_settings(environment: Mapping[str, str], overrides: Iterable[str] = ()) -> Settings:
    """Settings from `GRM_...` variables, then `section.name=value` overrides.

    Values are text; objects, lists and null are JSON. Raises SettingsError.
    """
    tree: dict[str, Any] = {}
    for name, value in sorted(environment.items()):
        if name.startswith(ENV_PREFIX) and not _NOT_OURS.match(name):
            _put(tree, name.removeprefix(ENV_PREFIX).lower().split("__"), value, name)
    for override in overrides:
        name, equals, value = override.partition("=")
        if not equals:
            raise SettingsError(f"{override!r}: write it as section.name=value")
        _put(tree, name.split("."), value, name)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        lines = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False))
        raise SettingsError("; ".join(lines)) from None


def as_markdown() -> str:
    """A table of every setting, its default and its meaning."""
    return "\n".join(["| setting | default | meaning |", "|---|---|---|", *_rows(Settings)])


def _rows(section: type[Section], prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        nested = type(field.default)
        if issubclass(nested, Section):
            yield from _rows(nested, f"{prefix}{name}.")
        else:
            yield _row(prefix + name, field)


def _row(name: str, field: FieldInfo) -> str:
    default = "none" if field.default is None else f"`{field.default}`"
    return f"| `{name}` | {default} | {(field.description or '').replace(chr(10), ' ')} |"


def _put(tree: dict[str, Any], path: list[str], value: str, name: str) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
        if not isinstance(tree, dict):
            raise SettingsError(f"{name}: {part!r} is a value and a section at once")
    tree[path[-1]] = _parsed(value)


def _parsed(value: str) -> Any:
    """Objects, lists and null are JSON. The rest stays text, which pydantic turns into what the setting is."""
    if value == "null":
        return None
    if value.startswith(("{", "[")):
        with contextlib.suppress(ValueError):
            return json.loads(value)
    return value
