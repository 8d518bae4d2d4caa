"""Refuses requests that were meant for another name.

A page at evil.example can point that name at 127.0.0.1 and then read what the server answers: to the browser it is the
same site. The one thing such a request cannot choose is its Host header.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from grm_server.api.error_handlers import error_response
from grm_server.errors import WrongHost


class Hosts:
    """ASGI middleware: the Host header is one of `names`, localhost or an IP address, or there is none."""

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names) | {"localhost", ""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._ours(Headers(scope=scope).get("host", "")):
            error = WrongHost("this server does not go by the name in the Host header; see http.allowed_hosts")
            return await error_response(error)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _ours(self, host: str) -> bool:
        host = host.lower()
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
