"""Protection against web pages: security headers on every response, and a check of the Host header.

CORS stays off: pages of other sites cannot read any response.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from grm_server.api.error_handlers import error_response
from grm_server.errors import WrongHost

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_LOAD_NOTHING = "default-src 'none'; frame-ancestors 'none'"
_LOAD_SWAGGER = (
    # No other host. Swagger UI styles its elements inline, and its style sheet holds pictures as `data:`.
    "default-src 'none'; connect-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'"
)


def add_security_headers(headers: MutableHeaders, path: str) -> None:
    """Browsers may show the response and do nothing else with it. Headers that are already set stay."""
    for name, value in _HEADERS.items():
        headers.setdefault(name, value)
    headers.setdefault("Content-Security-Policy", _LOAD_SWAGGER if path == "/docs" else _LOAD_NOTHING)


class AllowedHostsMiddleware:
    """Refuses requests whose Host header is not one of `names`, localhost, an IP address or absent.

    This stops DNS rebinding: a page at evil.example can point that name at 127.0.0.1, and then the browser takes this
    server for the same site. Only the Host header of such a request is out of the page's control.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str]) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in names) | {"localhost", ""}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._allowed(Headers(scope=scope).get("host", "")):
            error = WrongHost("Host header not allowed; add it to http.allowed_hosts")
            return await error_response(error)(scope, receive, send)
        return await self._app(scope, receive, send)

    def _allowed(self, host: str) -> bool:
        host = host.lower()
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
