"""The outermost layer of every request: its id, access log line, HTTP metrics, span, and a response for any error."""

from __future__ import annotations

import logging
import re
import secrets
import time
from contextlib import nullcontext
from typing import Literal

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grm_server.api.error_handlers import detail_response, internal_error
from grm_server.api.middleware.browser_safety import add_security_headers
from grm_server.api.service import Service
from grm_server.telemetry.context import Fact, RequestContext, current_request
from grm_server.telemetry.http_metrics import OTHER
from grm_server.telemetry.logging import with_facts

logger = logging.getLogger("grm_server.api.access")
"""Operators filter access lines by this name, so it does not follow the module."""

LogRequests = Literal["none", "failed", "all"]
HEADER = "X-Request-ID"
_SAFE_ID = re.compile(r"[A-Za-z0-9._:=@/+-]{1,128}")
_PROBES = ("/health", "/health/live", "/health/ready", "/metrics")
"""Machines request these every few seconds: they are logged at DEBUG only and not traced."""


class RequestContextMiddleware:
    """A request keeps the id that it comes with if that id is safe in a log."""

    def __init__(self, app: ASGIApp, service: Service, log_requests: LogRequests, tenant: str | None) -> None:
        """tenant: the tenant of all requests on a server without keys; None: `AuthMiddleware` notes it."""
        self._app = app
        self._service = service
        self._log_requests = log_requests
        self._tenant = tenant

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started_s = time.monotonic()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        context = RequestContext(_request_id(headers.get(HEADER.lower(), "")), self._tenant)
        status: int | None = None

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                response_headers = MutableHeaders(scope=message)
                response_headers[HEADER] = context.request_id
                add_security_headers(response_headers, scope["path"])
            await send(message)

        tracing = None if scope["path"] in _PROBES else self._service.tracing
        token = current_request.set(context)
        try:
            with nullcontext() if tracing is None else tracing.request(scope["method"], headers) as span:
                context.trace_id = None if span is None else span.trace_id
                try:
                    await self._app(scope, receive, send_with_headers)
                except Exception as error:
                    # uvicorn would log the whole error, which may quote a prompt.
                    detail = internal_error(error)
                    if status is None:
                        await detail_response(detail, 500)(scope, receive, send_with_headers)
                if span is not None:
                    span.answered(_route(scope), _or_disconnected(status))
        finally:
            self._record(scope, _or_disconnected(status), time.monotonic() - started_s, context)
            current_request.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float, context: RequestContext) -> None:
        """Count the request and write its access line."""
        route = _route(scope)
        metrics = self._service.metrics.http
        metrics.requests.labels(route, str(status)).inc()
        metrics.seconds.labels(route).observe(seconds)
        # A stream can fail after status 200, and a trainer may get 200 and a neutral reward for a failure.
        failed = status >= 500 or (status < 400 and context.error is not None)
        wanted = self._log_requests == "all" or (self._log_requests == "failed" and failed)
        level = logging.DEBUG if route in _PROBES or not wanted else logging.WARNING if failed else logging.INFO
        if logger.isEnabledFor(level):
            facts: dict[str, Fact] = {
                "method": _method(scope),
                "route": route,
                "status": status,
                "ms": round(seconds * 1000, 1),
            }
            # The route, not the path: clients choose the path, and it may hold private text.
            message = f"{facts['method']} {route} {status}"
            logger.log(level, message, extra=with_facts(facts | context.outcome()))


def _or_disconnected(status: int | None) -> int:
    """499, as in nginx: the client disconnected before there was a status."""
    return 499 if status is None else status


def _request_id(sent: str) -> str:
    return sent if _SAFE_ID.fullmatch(sent) else secrets.token_hex(8)


def _route(scope: Scope) -> str:
    """Template of the matched route."""
    return getattr(scope.get("route"), "path", OTHER)


def _method(scope: Scope) -> str:
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else OTHER
