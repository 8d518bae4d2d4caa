"""Identifies the caller by its API key, before any of the body is read."""

from __future__ import annotations

import base64
import binascii

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from grm_server.api.docs_page import ASSETS
from grm_server.api.error_handlers import error_response
from grm_server.api.middleware.keys import Callers
from grm_server.api.quota import ANONYMOUS, Caller
from grm_server.errors import GRMError, Unauthenticated
from grm_server.telemetry.context import note_tenant
from grm_server.telemetry.metrics import Metrics

PUBLIC = frozenset({"/", "/health", "/health/live", "/health/ready", "/docs", "/openapi.json"}) | ASSETS
"""Load balancers have no keys, and the OpenAPI document is in the public repository. Metrics are not public: they show
what is trained here and how much. Prometheus can send a key."""


class AuthMiddleware:
    """Puts the caller into the request's state, as `caller`. A server without keys does not install it."""

    def __init__(self, app: ASGIApp, callers: Callers, metrics: Metrics) -> None:
        self._app = app
        self._callers = callers
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            caller = self._caller(scope)
            if scope["method"] == "POST":
                caller.take_request()
        except GRMError as error:
            self._metrics.http.refused.labels(error.code).inc()
            # `Basic` works but is not offered: browsers would store the key and send it for other pages.
            headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else {}
            return await error_response(error, headers)(scope, receive, send)
        scope.setdefault("state", {})["caller"] = caller
        note_tenant(caller.name)
        return await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        if scope["path"] in PUBLIC:
            return ANONYMOUS
        key = key_of(Headers(scope=scope))
        if key is None:
            raise Unauthenticated(
                "an API key is needed: Authorization: Bearer KEY, X-API-Key: KEY, or in the URL: http://grm:KEY@host"
            )
        caller = self._callers.find(key)
        if caller is None:
            raise Unauthenticated("this API key is not valid")
        return caller


def key_of(headers: Headers) -> str | None:
    """The request's API key. Trainers that can only configure a URL send its part before the `@` as `Basic`: the key is
    then the password, or the user name if there is no password."""
    scheme, _, value = headers.get("authorization", "").strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip() or None
        case "basic":
            try:
                user, _, password = base64.b64decode(value.strip(), validate=True).decode("utf-8").partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return None
            return password or user or None
    return headers.get("x-api-key") or None
