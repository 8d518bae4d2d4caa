"""The door: where the server listens and what it takes."""

from __future__ import annotations

from pydantic import Field

from grm_server.settings.section import Section


class HTTPSettings(Section):
    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback exposes an unauthenticated server."""
    port: int = Field(8000, ge=0, le=65535)
    """0 lets the system choose."""
    max_body_bytes: int = Field(4 * 2**20, ge=1024)
    """Larger request bodies are refused with 413."""


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
