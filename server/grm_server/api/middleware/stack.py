"""The middleware of the app, in order."""

from __future__ import annotations

import time

from fastapi import FastAPI

from grm_server.api.middleware.auth import AuthMiddleware
from grm_server.api.middleware.body_limit import BodyLimitMiddleware
from grm_server.api.middleware.browser_safety import AllowedHostsMiddleware
from grm_server.api.middleware.drain import DrainMiddleware
from grm_server.api.middleware.keys import Callers
from grm_server.api.middleware.request_context import LogRequests, RequestContextMiddleware
from grm_server.api.quota import ANONYMOUS
from grm_server.api.service import Service
from grm_server.settings import AuthSettings, HTTPSettings


def load_callers(auth: AuthSettings) -> Callers | None:
    """The holders of API keys; None if no keys are set. Raises KeysError for an unusable file."""
    if not auth.keys and auth.keys_file is None:
        return None
    keys = {name: key.get_secret_value() for name, key in auth.keys.items()}
    return Callers(keys, None if auth.keys_file is None else auth.keys_file.expanduser(), time.monotonic)


def add_middleware_stack(
    app: FastAPI, http: HTTPSettings, callers: Callers | None, service: Service, *, log_requests: LogRequests
) -> None:
    """Request context (id, log, metrics, unexpected errors) > drain > Host > key > body > routes"""
    # Starlette puts the last one added outermost.
    app.add_middleware(BodyLimitMiddleware, limits=http, metrics=service.metrics)
    if callers is not None:
        app.add_middleware(AuthMiddleware, callers=callers, metrics=service.metrics)
    if http.allowed_hosts or (callers is None and http.loopback):
        app.add_middleware(AllowedHostsMiddleware, names=http.allowed_hosts)
    app.add_middleware(DrainMiddleware, drain=service.drain)
    tenant = ANONYMOUS.name if callers is None else None
    app.add_middleware(RequestContextMiddleware, service=service, log_requests=log_requests, tenant=tenant)
