"""`grm serve`: a bound socket first, then the engine, then uvicorn, then a word to the user."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import FrameType

import uvicorn
from fastapi import FastAPI

from grm_server.api.middleware.slow_headers import header_timeout_protocol
from grm_server.api.service import Service
from grm_server.app import create_app, prepare
from grm_server.engine.artifacts import ArtifactNotCached
from grm_server.settings import HTTPSettings, Settings, SettingsError, load_settings
from grm_server.telemetry.logging import set_up_logging

logger = logging.getLogger(__name__)


class StartupError(RuntimeError):
    """The server could not start; the message says what to do."""


STARTUP_ERRORS = (SettingsError, StartupError)

KEEP_ALIVE_S = 75
"""Longer than httpx (5 s) and nginx (60 s) keep an idle connection: if the server closed it first, it might do so
while a request comes. uvicorn's own is 5 s."""
HANDED_BACK_S = 2.0
"""Answering what was given up takes no longer."""

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
    set_up_logging(settings.log_level, settings.log_format)
    # Without vllm_args, which may hold a token.
    shown = settings.model_dump_json(exclude_defaults=True, exclude={"engine": {"vllm_args"}})
    logger.info("settings: %s", shown)
    # Before the engine: a port that is taken should cost no half minute.
    listener = _listen(settings)
    _check_exposure(settings)
    try:
        prepare(settings)
    except (ArtifactNotCached, OSError) as error:
        raise StartupError(str(error)) from error
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        # It would write down URLs.
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=5,
        lifespan="on",
        http=header_timeout_protocol(settings.http),
        ws="none",
    )
    server = uvicorn.Server(config)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(server, listener, app, settings))
    if not server.started:
        cause = app.state.start_error
        raise StartupError(f"the engine did not start: {type(cause).__name__}: {cause}")


def _check_exposure(settings: Settings) -> None:
    """Raises StartupError where anyone on the network could use the server, and nobody said that they may."""
    http, auth = settings.http, settings.auth
    if not (http.loopback or auth.keys or auth.keys_file or auth.open):
        raise StartupError(
            f"{http.host} can be reached from other machines, and there are no API keys: set some (GRM_AUTH__KEYS, or "
            "--set auth.keys_file=FILE), or listen on 127.0.0.1, or say --set auth.open=true where everyone who can "
            "reach the server may use it"
        )


async def _serve(server: uvicorn.Server, listener: socket.socket, app: FastAPI, settings: Settings) -> None:
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
        _end_on_signals(server, app.state.service, settings)
        print(_TRY.format(url=f"http://{f'[{host}]' if ':' in host else host}:{port}"), flush=True)  # noqa: T201
    await serving


def _end_on_signals(server: uvicorn.Server, service: Service, settings: Settings) -> None:
    """SIGTERM ends the server when its work is done; a second one, or Ctrl-C, at once.

    uvicorn would stop listening first, so that a load balancer finds nobody before it has been told. Not by
    `loop.add_signal_handler`: an engine's core that was forked shares the loop's wake-up pipe, and to stop that core
    with SIGTERM would end the server."""
    loop, hurry = asyncio.get_running_loop(), asyncio.Event()
    ending: list[asyncio.Task[None]] = []

    def begin(number: int) -> None:
        # Ctrl-C goes to the engine's core too, which does not wait for anybody.
        if ending or number == signal.SIGINT:
            hurry.set()
        if not ending:
            ending.append(loop.create_task(_end(server, service, hurry, settings.http)))

    def on_signal(number: int, _: FrameType | None) -> None:
        loop.call_soon_threadsafe(begin, number)

    # uvicorn, which has set its own, puts back those from before.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)


async def _end(server: uvicorn.Server, service: Service, hurry: asyncio.Event, http: HTTPSettings) -> None:
    drain = service.drain
    drain.begin()
    service.grouping.drain()
    if not hurry.is_set():
        logger.info("draining: %d requests in flight, at most %g s", drain.in_flight, http.drain_s)
    done = asyncio.ensure_future(_all(asyncio.sleep(http.drain_grace_s), drain.idle()))
    hurried = asyncio.ensure_future(hurry.wait())
    await asyncio.wait((done, hurried), timeout=http.drain_s, return_when=asyncio.FIRST_COMPLETED)
    done.cancel()
    hurried.cancel()
    if drain.in_flight:
        logger.warning("%d requests are not done; they get 503", drain.in_flight)
        drain.expire()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(drain.idle(), HANDED_BACK_S)
    logger.info("drained; the engine is closed now")
    server.should_exit = True


async def _all(*works: Coroutine[None, None, None]) -> None:
    async with asyncio.TaskGroup() as group:
        for work in works:
            group.create_task(work)


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
