"""HTTP: the address to listen on, and the limits of requests."""

from __future__ import annotations

import ipaddress

from pydantic import Field

from grm_server.settings.section import Section


class HTTPSettings(Section):
    host: str = "127.0.0.1"
    """Address to listen on. Any address except loopback requires API keys (`auth.keys`, `auth.keys_file`) or
    `auth.open`."""
    port: int = Field(8000, ge=0, le=65535)
    """Port to listen on; 0 lets the system choose."""
    max_body_bytes: int = Field(4 * 2**20, ge=1024)
    """Larger request bodies are refused with 413; a compressed body is measured before and after unpacking."""
    max_body_items: int = Field(20_000, ge=100)
    """Strings, objects and lists in a body; bodies with more are refused with 422 before parsing."""
    max_body_depth: int = Field(64, ge=8, le=200)
    """Nesting depth of objects and lists in a body; deeper bodies are refused with 422."""
    body_timeout_s: float = Field(30, gt=0)
    """Timeout for reading a body; slower requests are refused with 408."""
    head_timeout_s: float = Field(10, gt=0)
    """Timeout for reading the request line and headers; slower connections are closed."""
    max_reading_bytes: int = Field(256 * 2**20, ge=2**20)
    """Bytes of all bodies being read at once; above the limit, requests are refused with 503."""
    allowed_hosts: list[str] = []
    """Accepted names in the Host header, as a JSON list; localhost and IP addresses are always accepted. Empty: a
    server on loopback without keys accepts only those, to prevent DNS rebinding by web pages; other servers accept
    all."""
    drain_s: float = Field(25, ge=0)
    """Time that requests have to finish after SIGTERM; the others get 503. Kubernetes kills after 30 s."""
    drain_grace_s: float = Field(3, ge=0)
    """Minimum time after SIGTERM during which new requests get 503 before connections are refused, so load balancers
    notice. Part of `drain_s`."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server. Names other than localhost are not resolved."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class LimitSettings(Section):
    max_responses: int = Field(64, ge=1)
    """Maximum number of responses in a request."""
    max_k: int = Field(64, ge=1)
    """Maximum `k` of a request: samples that score each response."""
    max_samples: int = Field(512, ge=1)
    """Maximum number of samples of a request: k times its number of blocks, over all items of a POST together."""
    max_items: int = Field(1024, ge=1)
    """Maximum number of items in a POST of a trainer or reranker: responses, documents, or whole groups."""
    max_chars_per_token: int = Field(128, ge=8)
    """Texts with more than this many characters per token of the model's context are refused before anything looks at
    them. Prose has 1 to 5 characters per token; the longest token of Qwen 2.5 is 128 spaces. No bound holds for all
    tokenizers, since some turn a run of any length into one token: raise it for such a model."""
    max_thought_tokens: int = Field(32768, ge=16)
    """Largest `max_thought_tokens` of a request."""
    max_critique_tokens: int = Field(8192, ge=16)
    """Maximum token budget of a request."""
    max_deadline_s: float = Field(600, gt=0)
    """Maximum deadline of a request in seconds, and the default."""
