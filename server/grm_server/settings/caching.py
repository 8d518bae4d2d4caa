"""Caches: judgements for identical requests, principles of queries, and judgements to look up."""

from __future__ import annotations

from pydantic import Field

from grm_server.settings.section import Section


class CacheSettings(Section):
    max_mib: int = Field(0, ge=0)
    """Size of the cache that answers identical requests, MiB; the oldest of the API key that holds the
    most are evicted first. 0: off."""
    ttl_s: float = Field(3600, gt=0)
    """TTL of a judgement in that cache."""


class PrinciplesSettings(Section):
    max_mib: int = Field(16, ge=0)
    """Size of the cache of principles drawn for queries, MiB; the oldest of the API key that holds the most are evicted
    first."""
    ttl_s: float = Field(86400, gt=0)
    """TTL of the principles of a query."""


class JudgementSettings(Section):
    ttl_s: float = Field(3600, gt=0)
    """TTL of judgements for `GET /v1/judgements/{id}`."""
    max_mib: int = Field(256, ge=1)
    """Size of that store, with texts and log-probabilities of scores, MiB; the oldest of the API key that
    holds the most are evicted first."""
