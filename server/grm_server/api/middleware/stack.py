"""What a request passes on its way in, and in which order."""

from __future__ import annotations

import time

from fastapi import FastAPI

from grm_server.api.error_handlers import UnexpectedErrors
from grm_server.api.middleware.auth import Auth
from grm_server.api.middleware.body_limit import BodyLimit
from grm_server.api.middleware.drain import Draining
from grm_server.api.middleware.hosts import Hosts
from grm_server.api.middleware.keys import Callers
from grm_server.api.middleware.quota import Caller
from grm_server.api.middleware.request_context import LogRequests, RequestContextMiddleware
from grm_server.api.middleware.security_headers import SecurityHeaders
from grm_server.api.service import Service
from grm_server.settings import AuthSettings, HTTPSettings


def load_callers(auth: AuthSettings) -> Callers | None:
    """Who holds a key. None: there are no keys. Raises KeysError for a file that cannot be used."""
    if not auth.keys and auth.keys_file is None:
        return None
    keys = {name: key.get_secret_value() for name, key in auth.keys.items()}
    return Callers(keys, None if auth.keys_file is None else auth.keys_file.expanduser(), time.monotonic)


def add_middleware_stack(
    app: FastAPI, http: HTTPSettings, callers: Callers | None, service: Service, *, log_requests: LogRequests
) -> None:
    """headers of answers <- its id, counted and logged <- last resort <- drain <- host <- key <- body <- the routes"""
    # The last one added is the outermost.
    app.add_middleware(BodyLimit, limits=http, metrics=service.metrics)
    app.add_middleware(Auth, callers=callers, anonymous=Caller("anonymous", time.monotonic), metrics=service.metrics)
    if http.allowed_hosts or (callers is None and http.loopback):
        app.add_middleware(Hosts, names=http.allowed_hosts)
    app.add_middleware(Draining, drain=service.drain)
    app.add_middleware(UnexpectedErrors)
    app.add_middleware(RequestContextMiddleware, service=service, log_requests=log_requests)
    app.add_middleware(SecurityHeaders)
