"""`grm serve`: a bound socket first, then the engine, then uvicorn, then a word to the user."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Iterable, Mapping

import uvicorn

from grm_server.app import create_app, prepare
from grm_server.engine.prepared import NotPrepared
from grm_server.settings import Settings, SettingsError, load_settings
from grm_server.telemetry.logging import set_up_logging

logger = logging.getLogger(__name__)


class StartupError(RuntimeError):
    """The server could not start; the message says what to do."""


STARTUP_ERRORS = (SettingsError, StartupError)

_TRY = """\

GRM Server is ready on {url}   (API: {url}/docs, stop: Ctrl-C)
Try it:

  curl -s {url}/v1/rewards -H 'Content-Type: application/json' -d '{{
    "query": "Why is the sky blue?",
    "responses": ["Air scatters blue light more than red.", "Because it is."],
    "k": 8, "return_samples": true}}'
"""


def run(environment: Mapping[str, str], overrides: Iterable[str]) -> None:
    """Serve until interrupted. Raises one of STARTUP_ERRORS."""
    settings = load_settings(environment, overrides)
    set_up_logging(settings.log_level)
    # Without vllm_args, which may hold a token.
    shown = settings.model_dump_json(exclude_defaults=True, exclude={"engine": {"vllm_args"}})
    logger.info("settings: %s", shown)
    # Before the engine: a port that is taken should cost no half minute.
    listener = _listen(settings)
    try:
        prepare(settings)
    except (NotPrepared, OSError) as error:
        raise StartupError(str(error)) from error
    app = create_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=5, lifespan="on")
    )
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(server, listener))
    if not server.started:
        cause = app.state.start_error
        raise StartupError(f"the engine did not start: {type(cause).__name__}: {cause}")


async def _serve(server: uvicorn.Server, listener: socket.socket) -> None:
    async def serve() -> None:
        # uvicorn exits when the app does not start; `run` says why instead.
        with contextlib.suppress(SystemExit):
            await server.serve(sockets=[listener])

    serving = asyncio.create_task(serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.02)
    if server.started:
        host, port = listener.getsockname()[:2]
        host = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        print(_TRY.format(url=f"http://{f'[{host}]' if ':' in host else host}:{port}"), flush=True)  # noqa: T201
    await serving


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.http.host, settings.http.port
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise StartupError(f"cannot listen on {host}:{port}: {error.strerror}; choose another with --port") from error
    listener.set_inheritable(False)
    return listener


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
