"""How a client reaches its server: address, API key, proxy, certificates, and what to do when the connection fails."""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from typing import Any
from urllib.request import getproxies, proxy_bypass

import httpx

from grm_client.errors import ConnectionFailed, GRMClientError, TimedOut

CONNECT_TIMEOUT_S = 10.0


def server_url(url: str) -> httpx.URL:
    """Parse the server's address; without a scheme, `http://` is assumed. Raises ValueError that says what is wrong."""
    text = url.strip()
    address = text if "://" in text else f"http://{text}"
    try:
        parsed = httpx.URL(address)
    except (httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"the server's URL {text!r} is not valid: {error}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"the server's URL must look like http://host:8000 or https://host, got {text!r}")
    if parsed.port is not None and not 0 < parsed.port < 65536:
        raise ValueError(f"the server's URL {text!r} has no valid port: ports are 1 to 65535")
    return parsed


def clean_api_key(api_key: str | None) -> str | None:
    """The key without the white space around it, such as the newline of a file; None if it is empty.

    Raises ValueError for a key that no HTTP header can carry. The message does not contain the key.
    """
    key = (api_key or "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise ValueError(
            "the API key contains a space, a control or a non-ASCII character; copy it again, without quotes"
        )
    return key or None


def http_options(base_url: str, api_key: str | None, timeout_s: float, *, network: bool = True) -> dict[str, Any]:
    """Arguments for both `httpx.Client` and `httpx.AsyncClient`. network: False if a test replaces the transport.

    Raises ValueError for an invalid URL, key or proxy.
    """
    url, key = server_url(base_url), clean_api_key(api_key)
    return {
        "base_url": url,
        "headers": {"user-agent": "grm-client"} | ({"authorization": f"Bearer {key}"} if key else {}),
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, CONNECT_TIMEOUT_S)),
        # No limits: the caller chooses the concurrency and the server may refuse it. Waiting for a pooled connection
        # would count against `timeout_s`.
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=None),
        # We choose the proxy. httpx would load all of the environment, even proxies that do not apply to this URL, and
        # fails if it cannot.
        "trust_env": False,
        **({"proxy": _proxy(url), "verify": _certificates(url)} if network else {}),
    }


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine. Connections to the unspecified addresses (0.0.0.0) stay on it too."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


def proxy_for(url: httpx.URL) -> tuple[str, str] | None:
    """The environment variable that sets a proxy for `url`, and the proxy's URL. None: connect directly.

    A proxy cannot reach this machine's loopback, so none applies there. NO_PROXY holds names, addresses and networks.
    """
    proxies = getproxies()
    host = url.host
    if is_loopback(host) or proxy_bypass(host if url.port is None else f"{host}:{url.port}"):
        return None
    no_proxy = [entry.strip() for entry in proxies.get("no", "").split(",")]
    if "*" in no_proxy or _in_networks(host, no_proxy):
        return None
    for scheme in (url.scheme, "all"):
        if proxy := proxies.get(scheme):
            return f"{scheme.upper()}_PROXY", proxy if "://" in proxy else f"http://{proxy}"
    return None


def _in_networks(host: str, no_proxy: Iterable[str]) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in no_proxy:
        try:
            if address in ipaddress.ip_network(entry, strict=False):
                return True
        except ValueError:  # a name, not a network
            continue
    return False


def _proxy(url: httpx.URL) -> httpx.Proxy | None:
    """The proxy for `url`. Raises ValueError if it cannot be used."""
    setting = proxy_for(url)
    if setting is None:
        return None
    variable, proxy = setting
    around = f"to go around it, add {url.host} to NO_PROXY"
    try:
        result = httpx.Proxy(proxy)
    except (httpx.InvalidURL, ValueError):
        raise ValueError(f"{variable} does not hold a valid proxy URL; correct it, or {around}") from None
    if result.url.scheme.startswith("socks") and find_spec("socksio") is None:
        raise ValueError(f"{_shown(variable, proxy)} needs the package socksio (pip install socksio); {around}")
    return result


def _shown(variable: str, proxy: str) -> str:
    """A proxy for messages, without the password that its URL may contain."""
    url = httpx.URL(proxy)
    return f"the proxy {url.scheme}://{url.netloc.decode()} ({variable})"


def _certificates(url: httpx.URL) -> ssl.SSLContext | bool:
    """httpx reads SSL_CERT_FILE and SSL_CERT_DIR only if it trusts the environment. Creating a context takes 20 ms."""
    if url.scheme != "https" or not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        return True
    return httpx.create_ssl_context(trust_env=True)


def through_proxy(url: httpx.URL) -> str:
    """A clause for messages that names the proxy on the way to `url`; empty without one."""
    setting = proxy_for(url)
    return "" if setting is None else f" through {_shown(*setting)}"


def transport_error(error: httpx.RequestError, base_url: str) -> GRMClientError:
    """The client's error for a request without an answer. Its message says what to do."""
    url = server_url(base_url)
    through = through_proxy(url)
    around = f"; to go around the proxy, add {url.host} to NO_PROXY" if through else ""
    reason = str(error) or type(error).__name__
    if isinstance(error, httpx.ProxyError):
        return ConnectionFailed(f"cannot reach {base_url}{through}: {reason}{around}")
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return ConnectionFailed(_not_connected(error, url, base_url, through, around))
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(
            f"{base_url} did not answer within timeout_s{through}; raise it, or request fewer samples or tokens"
        )
    hint = ""
    if isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) and url.scheme == "http":
        hint = " (if the server speaks TLS, use https://)"  # such a server closes or resets the connection
    return ConnectionFailed(f"lost the connection to {base_url}{through}: {reason}{hint}")


def _not_connected(error: httpx.RequestError, url: httpx.URL, base_url: str, through: str, around: str) -> str:
    causes = list(_causes(error))
    if certificate := next((cause for cause in causes if isinstance(cause, ssl.SSLCertVerificationError)), None):
        return (
            f"the certificate of {base_url} is not trusted: {certificate.verify_message}; if a private CA "
            "signed it, set SSL_CERT_FILE to the CA's certificate"
        )
    if any(isinstance(cause, ssl.SSLError) for cause in causes):
        return f"{base_url} does not answer in TLS: {error}; if the server has no TLS, use http://"
    if through:
        return f"cannot reach {base_url}{through}: {str(error) or 'timed out'}{around}"
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return f"the host name {url.host} of {base_url} does not resolve: {error}; check the URL"
    return f"no server at {base_url}; start one with `grm serve`"


def is_tls_failure(error: httpx.RequestError) -> bool:
    """Whether TLS failed when connecting. A retry would fail too."""
    return isinstance(error, httpx.ConnectError) and any(isinstance(cause, ssl.SSLError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
