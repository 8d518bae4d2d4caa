"""The door: where the server listens and what it takes."""

from __future__ import annotations

import ipaddress

from pydantic import Field

from grm_server.settings.section import Section


class HTTPSettings(Section):
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback needs API keys (`auth.keys`, `auth.keys_file`), or `auth.open`."""
    port: int = Field(8000, ge=0, le=65535)
    """0 lets the system choose."""
    max_body_bytes: int = Field(4 * 2**20, ge=1024)
    """Larger request bodies are refused with 413."""
    max_body_items: int = Field(20_000, ge=100)
    """Strings, objects and lists that a body may hold; more are refused with 422 before they are parsed."""
    max_body_depth: int = Field(64, ge=8, le=200)
    """Objects and lists within one another that a body may hold."""
    body_timeout_s: float = Field(30, gt=0)
    """A body that is not there by then is refused with 408."""
    head_timeout_s: float = Field(10, gt=0)
    """A connection on which no whole request line and headers come by then is closed."""
    max_reading_bytes: int = Field(256 * 2**20, ge=2**20)
    """Bytes of bodies that may be on their way in at once; what comes beyond is refused with 503."""
    allowed_hosts: list[str] = []
    """Names that browsers may know the server by, as a JSON list. Without any, a server on loopback without keys
    answers to localhost and IP addresses, since a page elsewhere could point a name of its own here; others to all."""
    drain_s: float = Field(25, ge=0)
    """After SIGTERM so long requests may take to finish; the rest get 503. Kubernetes kills after 30."""
    drain_grace_s: float = Field(3, ge=0)
    """After SIGTERM so long at least new requests get 503, so that load balancers look elsewhere, before connections
    are refused. Within `drain_s`."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server. Other names than localhost are not looked up."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class LimitSettings(Section):
    max_responses: int = Field(64, ge=1)
    """Responses a request may hold."""
    max_k: int = Field(64, ge=1)
    """Readings of each response a request may ask for."""
    max_samples: int = Field(512, ge=1)
    """Samples a request may ask for: k times the blocks that its responses make."""
    max_critique_tokens: int = Field(8192, ge=16)
    """Token budget a request may ask for."""
    max_deadline_s: float = Field(600, gt=0)
    """Seconds a request may take, and takes at most if it does not say."""
