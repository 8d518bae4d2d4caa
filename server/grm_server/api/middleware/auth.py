"""Who is asking: the first thing that is known of a request, before any of its body is read."""

from __future__ import annotations

import base64
import binascii

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from grm_server.api.error_handlers import error_response
from grm_server.api.middleware.keys import Callers
from grm_server.api.middleware.quota import Caller
from grm_server.errors import GRMError, Unauthenticated
from grm_server.telemetry.metrics import Metrics

PUBLIC = frozenset({"/health/live", "/health/ready", "/docs", "/openapi.json"})
"""Balancers hold no keys, and what the document says is in the repository. Metrics are not public: they tell what is
trained here and how much; Prometheus can send a key."""


class Auth:
    """ASGI middleware: puts the caller and its name into the request's state, as `caller` and `tenant`."""

    def __init__(self, app: ASGIApp, callers: Callers | None, anonymous: Caller, metrics: Metrics) -> None:
        """callers: None where everyone may ask; all are `anonymous` then."""
        self._app = app
        self._callers = callers
        self._anonymous = anonymous
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        try:
            caller = self._caller(scope)
            if scope["method"] == "POST":
                caller.take_request()
        except GRMError as error:
            self._metrics.refused.labels(error.code).inc()
            # `Basic` is understood, but not asked for: browsers would remember it and send it along for other pages.
            headers = {"WWW-Authenticate": "Bearer"} if isinstance(error, Unauthenticated) else {}
            return await error_response(error, headers)(scope, receive, send)
        scope.setdefault("state", {}).update(caller=caller, tenant=caller.name)
        return await self._app(scope, receive, send)

    def _caller(self, scope: Scope) -> Caller:
        if self._callers is None or scope["path"] in PUBLIC:
            return self._anonymous
        key = presented(Headers(scope=scope))
        if key is None:
            raise Unauthenticated(
                "an API key is needed: Authorization: Bearer KEY, X-API-Key: KEY, or in the URL: http://grm:KEY@host"
            )
        caller = self._callers.find(key)
        if caller is None:
            raise Unauthenticated("this API key is not valid")
        return caller


def presented(headers: Headers) -> str | None:
    """The key that a request comes with. A trainer that takes nothing but a URL sends what stands before the `@` as
    `Basic`: the password, or a user name alone."""
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
