"""Start a vLLM engine in this process, its core in a process of its own."""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

from grm_server.engine.profile import set_environment

if TYPE_CHECKING:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM


async def launch(args_of: Callable[[], AsyncEngineArgs], *, offline: bool) -> AsyncLLM:
    """Load a model and start its engine; blocks the event loop for seconds to minutes.

    args_of: called once the environment is set, since it imports vLLM.
    offline: nothing has to be fetched from a model hub.

    Must be called on the thread of the running event loop, and from under `if __name__ == "__main__"`. Raises what vLLM
    raises for a model that it cannot load.
    """
    set_environment(offline=offline)
    # What their makers warn each other of is no business of the operator's.
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("torch").setLevel(logging.ERROR)
    # Collecting garbage while half a million objects are made that stay costs a second of the five.
    gc.disable()
    try:
        # Imported here: it takes seconds, and the environment must be set first.
        from vllm.v1.engine.async_llm import AsyncLLM

        args = args_of()
    finally:
        gc.enable()
    config = args.create_engine_config()
    if config.device_config.device_type == "cpu" and sys.platform == "linux":
        # vLLM has just chosen spawn, which pays for all imports a second time: 7 s of 20.
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"
    return AsyncLLM.from_vllm_config(
        config, enable_log_requests=args.enable_log_requests, disable_log_stats=args.disable_log_stats
    )


def shut_down(engine: AsyncLLM) -> None:
    """Free the engine. Idempotent."""
    engine.shutdown()
    # Its finaliser would shut down again, at the interpreter's end, when half of vLLM is gone, and print that.
    engine.shutdown = lambda: None
