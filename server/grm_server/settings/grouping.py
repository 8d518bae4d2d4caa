"""Groups: responses to one prompt that a trainer sends one by one, judged together."""

from __future__ import annotations

from pydantic import Field

from grm_server.settings.section import Section


class GroupingSettings(Section):
    n: int | None = Field(None, ge=1)
    """Group size, if the trainer's URL does not set it (`?n=8`). None: unknown; a group then closes when it is idle."""
    idle_s: float = Field(2.0, gt=0)
    """A group without a new member for this long is judged as it is."""
    window_s: float = Field(30.0, gt=0)
    """Maximum time that the first member of a group waits for the others; less if its trainer's timeout is near."""
    max_waiting: int = Field(4096, ge=1)
    """Responses waiting in open groups. Above the limit, the oldest group of the API key with the most waiting
    responses is judged as it is."""
    max_waiting_mib: int = Field(256, ge=1)
    """Characters of these responses and their prompts, in units of 2**20. Above the limit, as for
    `grouping.max_waiting`."""
    ttl_s: float = Field(1800, gt=0)
    """TTL of stored rewards, which answer retries."""
    max_judged: int = Field(65536, ge=1)
    """Stored rewards. Above the limit, the oldest of the API key with the most are evicted."""
