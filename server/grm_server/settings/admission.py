"""Admission control: how many samples run, and how many may wait."""

from __future__ import annotations

from pydantic import Field

from grm_server.settings.section import Section


class AdmissionSettings(Section):
    max_running_samples: int | None = Field(None, ge=1)
    """Samples in the engine above which requests queue. None: 1.25 times `engine.max_num_seqs`, so the engine never
    runs out of work."""
    max_waiting_samples: int = Field(65536, ge=1)
    """Samples of all queued requests together; above the limit, requests are refused with 429. The default is eight
    times a training step of 512 groups with k = 16."""
    max_waiting_prompt_tokens: int = Field(2**28, ge=1)
    """Estimated tokens of the distinct prompts of queued requests; above the limit, requests are refused with 429.
    Bounds memory, because queued texts are held in memory."""
