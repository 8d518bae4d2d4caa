"""Check that the machine has what the server needs: processor, memory, files, a port."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from grm_server.cli.doctor.finding import Finding, fail, gib, ok, warn
from grm_server.engine.vllm.args import has_bfloat16_instructions
from grm_server.settings import Settings

_PROCESSES = int(1.8 * 2**30)
"""Memory of the server and the engine process beside weights and KV cache. Measured: 4.3 GiB in total, with a cache of
2 GiB and weights of 0.5 GiB."""
_SECOND_ENGINE = 2**30
_FILES = 4096


@dataclass(frozen=True, slots=True)
class Machine:
    python: tuple[int, ...]
    system: str
    bfloat16: bool
    memory: int | None
    """Available bytes; None if unknown."""
    open_files: int | None
    """Limit of open files; None if unknown."""
    preload: str
    """LD_PRELOAD."""


def inspect_machine() -> Machine:
    return Machine(
        tuple(sys.version_info[:3]),
        f"{platform.system()} {platform.machine()}",
        has_bfloat16_instructions(),
        _available_memory(),
        _open_files(),
        os.environ.get("LD_PRELOAD", ""),
    )


def check_machine(machine: Machine, settings: Settings, weights: int, *, cpu: bool) -> Iterator[Finding]:
    """weights: bytes of all models on disk, 0 if unknown. cpu: the CPU engine is installed."""
    version = ".".join(map(str, machine.python))
    if machine.python < (3, 11):
        yield fail("python", f"Python {version}", "install Python 3.11 or later")
    else:
        yield ok("python", f"Python {version}, {machine.system}")
    if machine.open_files is not None and machine.open_files < _FILES:
        what = f"the limit of open files is {machine.open_files}; each waiting client holds one"
        yield warn("files", what, "ulimit -n 65536 (LimitNOFILE= in systemd, --ulimit nofile= in Docker)")
    elif machine.open_files is not None:
        yield ok("files", f"the limit of open files is {machine.open_files}")
    if cpu and settings.engine.kind == "vllm":
        yield from _check_cpu(machine, settings, weights)


def _check_cpu(machine: Machine, settings: Settings, weights: int) -> Iterator[Finding]:
    if machine.bfloat16:
        yield ok("cpu", "has bfloat16 instructions")
    elif settings.engine.dtype == "bfloat16":
        what = "engine.dtype = bfloat16, but the CPU has no bfloat16 instructions"
        yield warn("cpu", what, "unset engine.dtype: float32 is twice as fast here")
    else:
        what = "no bfloat16 instructions (avx512_bf16, amx_bf16): the engine uses float32, which needs twice the memory"
        yield ok("cpu", what)
    second = settings.meta_rm.kind == "vllm"
    caches = settings.engine.cpu_kv_cache_gib + (settings.meta_rm.cpu_kv_cache_gib if second else 0)
    needed = _PROCESSES + second * _SECOND_ENGINE + caches * 2**30 + weights * (1 if machine.bfloat16 else 2)
    if machine.memory is None:
        yield warn("memory", "the free memory is unknown", f"make sure that about {gib(needed)} are free")
    elif machine.memory < needed:
        what = f"{gib(machine.memory)} free, about {gib(needed)} needed"
        yield fail("memory", what, "free memory, lower engine.cpu_kv_cache_gib, or choose a smaller model")
    else:
        yield ok("memory", f"{gib(machine.memory)} free, about {gib(needed)} needed")
    if "tcmalloc" not in machine.preload:
        what = "tcmalloc is not preloaded; vLLM recommends it on a CPU"
        advice = "apt install libtcmalloc-minimal4, and start the server with LD_PRELOAD set to its path"
        yield warn("allocator", what, advice)


def check_port(settings: Settings) -> Finding:
    host, port = settings.http.host, settings.http.port
    where = f"{host}:{port}"
    if port == 0:
        return ok("port", "the system chooses a free port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        advice = "choose another port with --port; if a GRM Server uses it, check that one: grm doctor --url"
        return fail("port", f"cannot listen on {where}: {error.strerror}", advice)
    return ok("port", f"{where} is free")


def check_tracing(settings: Settings, installed: bool, environment: Mapping[str, str]) -> Iterator[Finding]:
    if not settings.tracing:
        return
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    endpoint = next((environment[name] for name in names if environment.get(name)), "http://localhost:4318")
    if not installed:
        yield fail(
            "tracing",
            "OpenTelemetry is not installed",
            "in a clone: pip install ./clients '.[tracing]'",
        )
    else:
        yield ok("tracing", f"spans go to {endpoint}")


def _open_files() -> int | None:
    """The hard limit, to which `grm serve` raises the soft one."""
    try:
        import resource
    except ImportError:  # Windows, where the client may run
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def _available_memory() -> int | None:
    """Bytes available to the machine or to this container, whichever is less."""
    known = [size for size in (_meminfo(), _cgroup()) if size is not None]
    return min(known, default=None)


def _meminfo() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _cgroup() -> int | None:
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            return int(Path(limit).read_text()) - int(Path(used).read_text())
        except (OSError, ValueError):  # no such control group, or the limit is "max"
            continue
    return None
