"""Every request at the door: its id, its time, its place in the metrics, its span, its line in the log."""

from __future__ import annotations

import logging
import re
import secrets
import time
from contextlib import nullcontext
from typing import Literal

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grm_server.api.service import Service
from grm_server.telemetry.context import Fact, RequestContext, current_request
from grm_server.telemetry.http_metrics import OTHER
from grm_server.telemetry.logging import with_facts

logger = logging.getLogger("grm_server.api.access")
"""A name of its own: operators filter access lines by it."""

LogRequests = Literal["none", "failed", "all"]
HEADER = "X-Request-ID"
_ID = re.compile(r"[A-Za-z0-9._:=@/+-]{1,128}")
_QUIET = ("/health/live", "/health/ready", "/metrics")
"""Asked for every few seconds by machines: in the log at DEBUG only, and in no trace."""


class RequestContextMiddleware:
    """ASGI middleware, the outermost. A request keeps the id that it comes with if that can do no harm in a log."""

    def __init__(self, app: ASGIApp, service: Service, log_requests: LogRequests) -> None:
        self._app = app
        self._service = service
        self._log_requests = log_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started_s = time.monotonic()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        context = RequestContext(_request_id(headers.get(HEADER.lower(), "")), scope.setdefault("state", {}))
        status = 499  # of a caller who left before there was one

        async def named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = context.request_id
            await send(message)

        tracing = None if scope["path"] in _QUIET else self._service.tracing
        token = current_request.set(context)
        try:
            with nullcontext() if tracing is None else tracing.request(scope["method"], headers) as span:
                context.trace_id = None if span is None else span.trace_id
                await self._app(scope, receive, named)
                if span is not None:
                    span.answered(_route(scope), status)
        finally:
            seconds = time.monotonic() - started_s
            self._service.metrics.http.answered(_route(scope), status, seconds)
            self._log(scope, status, seconds, context)
            current_request.reset(token)

    def _log(self, scope: Scope, status: int, seconds: float, context: RequestContext) -> None:
        route = _route(scope)
        # A stream that failed began well, and a trainer may have got a neutral reward for what failed.
        failed = status >= 500 or (status < 400 and context.error is not None)
        wanted = self._log_requests == "all" or (self._log_requests == "failed" and failed)
        level = logging.DEBUG if route in _QUIET or not wanted else logging.WARNING if failed else logging.INFO
        if logger.isEnabledFor(level):
            facts: dict[str, Fact] = {
                "method": _method(scope),
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 1),
            }
            # Not the path: callers write it.
            message = f"{facts['method']} {route} {status}"
            logger.log(level, message, extra=with_facts(facts | context.outcome()))


def _request_id(given: str) -> str:
    return given if _ID.fullmatch(given) else secrets.token_hex(8)


def _route(scope: Scope) -> str:
    """The template of the route that took the request."""
    return getattr(scope.get("route"), "path", OTHER)


def _method(scope: Scope) -> str:
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else OTHER
