"""Start a vLLM engine in this process, its core in a process of its own, and free it again."""

from __future__ import annotations

import asyncio
import ctypes
import functools
import gc
import logging
import multiprocessing
import os
import select
import signal
import socket
import stat
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from grm_server.engine.stats import StepStatLogger
from grm_server.engine.vllm.args import set_environment

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

logger = logging.getLogger(__name__)

_GRACE_S = 2.0
"""So long an engine's process may take to end by itself. A hung one never does."""
TRIM_S = 60
"""Between two times that a core on a CPU returns free memory to the system: tens of milliseconds each."""
_BUILDING = threading.Lock()
"""One at a time: building an engine changes the environment of the process."""


async def launch(
    args_of: Callable[[], AsyncEngineArgs], *, offline: bool, pulse: StepStatLogger | None = None
) -> AsyncLLM:
    """Load a model and start its engine: seconds to minutes, in a thread, while the event loop goes on.

    args_of: called once the environment is set, since it imports vLLM.
    offline: nothing has to be fetched from a model hub.
    pulse: told of every step of the engine.

    Must be called from under `if __name__ == "__main__"`. Raises what vLLM raises for a model that it cannot load.
    Cancelling it ends the process that was begun.
    """
    build = _Build(args_of, offline, pulse)
    building = asyncio.ensure_future(asyncio.to_thread(build.run))
    try:
        return await asyncio.shield(building)
    except asyncio.CancelledError:
        # A thread cannot be ended; this one gives up when the process is gone that it waits for.
        build.unwanted = True
        while not building.done():
            build.kill()
            await asyncio.wait([building], timeout=0.1)
        if building.exception() is None:
            await shut_down(building.result())
        raise


class _Build:
    """One start of an engine, in a thread."""

    def __init__(self, args_of: Callable[[], AsyncEngineArgs], offline: bool, pulse: StepStatLogger | None) -> None:
        self.unwanted = False
        self._args_of = args_of
        self._offline = offline
        self._pulse = pulse
        self._others: set[object] | None = None

    def run(self) -> AsyncLLM:
        with _BUILDING:
            self._others = set(multiprocessing.active_children())
            if self.unwanted:
                raise RuntimeError("the engine is not wanted any more")
            return self._build()

    def kill(self) -> None:
        """End the processes that this start has begun."""
        if self._others is not None:
            for process in set(multiprocessing.active_children()) - self._others:
                process.kill()

    def _build(self) -> AsyncLLM:
        set_environment(offline=self._offline)
        # What their makers warn each other of is no business of the operator's.
        warnings.filterwarnings("ignore", category=FutureWarning)
        logging.getLogger("torch").setLevel(logging.ERROR)
        # Collecting garbage while half a million objects are made that stay costs a second of the five.
        gc.disable()
        try:
            # Imported here: it takes seconds, and the environment must be set first.
            from vllm.v1.engine.async_llm import AsyncLLM

            args = self._args_of()
        finally:
            gc.enable()
        config = args.create_engine_config()
        if config.device_config.device_type == "cpu" and sys.platform == "linux":
            # vLLM has just chosen spawn, which pays for all imports a second time: 7 s of 20.
            os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
        _bind_forked_cores_to(os.getpid())
        engine = AsyncLLM.from_vllm_config(
            config,
            enable_log_requests=args.enable_log_requests,
            disable_log_stats=args.disable_log_stats,
            stat_loggers=None if self._pulse is None else [self._pulse],
        )
        _spare_what_is_loaded()
        return engine


async def shut_down(engine: AsyncLLM) -> None:
    """Free the engine: its process has ended when this returns, also one that is hung. Idempotent.

    What it still writes fails with EngineDeadError.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    end = engine.shutdown
    # Its finaliser would shut down again, at the interpreter's end, when half of vLLM is gone, and print that.
    engine.shutdown = lambda *_, **__: None
    # `shutdown` ends the task that would tell them.
    engine.output_processor.propagate_error(EngineDeadError())
    await asyncio.to_thread(end, _GRACE_S)


def cause_of_death(engine: AsyncLLM) -> str:
    """What is known of a core that ended by itself."""
    manager = engine.engine_core.resources.engine_manager
    codes = [process.exitcode for process in manager.processes] if manager is not None else []
    killed = next((-code for code in codes if code is not None and code < 0), None)
    if killed is None:
        return "the engine's process has died"
    # The kernel's out-of-memory killer uses it, and hardly anything else by itself.
    out_of_memory = " (out of memory?)" if killed == 9 else ""
    return f"the engine's process was killed by signal {killed}{out_of_memory}"


@functools.cache
def _spare_what_is_loaded() -> None:
    """Take vLLM's half million objects, which stay, out of garbage collection: a look through all of them takes a third
    of a second in which nobody is answered. Once: later engines bring few, which go when they are replaced.
    """
    gc.collect()
    gc.freeze()


@functools.cache
def _bind_forked_cores_to(server: int) -> None:
    """Have a forked core end with the server, close what it inherits of the server's connections, and return memory.

    A core whose server was killed would wait for work for ever, with all its memory. Connections it would hold open: a
    client would not see the server close one, send its next request there, and wait. And glibc keeps what batches of
    all sizes leave free: it grew by hundreds of MiB in minutes (docs/design/supervision.md).
    """

    def end_with_server() -> None:
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        # Not PR_SET_PDEATHSIG: that goes by the thread that forked, which ends when the engine is built.
        with suppress(ProcessLookupError):
            end = select.poll()
            end.register(os.pidfd_open(server), select.POLLIN)
            while not end.poll(1000 * TRIM_S):
                # Only glibc has it.
                if trim is not None:
                    trim(0)
        os.kill(os.getpid(), signal.SIGKILL)

    def after_fork() -> None:
        if os.getppid() != server:
            return
        for name in os.listdir("/proc/self/fd"):
            with suppress(OSError):
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    inherited = socket.socket(fileno=int(name))
                    if inherited.family in (socket.AF_INET, socket.AF_INET6):
                        inherited.close()
                    else:
                        inherited.detach()
        threading.Thread(target=end_with_server, name="grm-end-with-server", daemon=True).start()

    # Elsewhere vLLM does not fork.
    if sys.platform == "linux":
        os.register_at_fork(after_in_child=after_fork)
