"""What outlives a request."""

from __future__ import annotations

from pydantic import Field

from grm_server.settings.section import Section


class GroupingSettings(Section):
    n: int | None = Field(None, ge=1)
    """Responses to one prompt that a trainer sends one by one and that are judged together, if its URL (`?n=8`) does
    not say. None: unknown; a group then closes when nobody came for a while."""
    idle_s: float = Field(2.0, gt=0)
    """A group that nobody joined for so long is judged as it is."""
    window_s: float = Field(30.0, gt=0)
    """So long the first of a group waits for the others at most; less where its trainer's timeout is near."""
    max_waiting: int = Field(4096, ge=1)
    """Responses that may wait in open groups. With one more a group is judged as it is: the one that waits the longest,
    of the API key that has the most waiting."""
    max_waiting_mib: int = Field(256, ge=1)
    """Letters that they and their prompts may have, in units of 2**20; likewise."""
    ttl_s: float = Field(1800, gt=0)
    """So long a reward is remembered, so that a retry gets it."""
    max_judged: int = Field(65536, ge=1)
    """Rewards that are remembered."""


class AdmissionSettings(Section):
    max_running_samples: int | None = Field(None, ge=1)
    """While the engine has so many samples, requests wait for their turn. None: a quarter more than it works on at once
    (`engine.max_num_seqs`), so that it never waits for the next one."""
    max_waiting_samples: int = Field(65536, ge=1)
    """Samples that waiting requests may ask for together; beyond that requests are refused with 429. Eight times what a
    step of 512 groups with k = 16 asks for."""
    max_waiting_prompt_tokens: int = Field(2**28, ge=1)
    """Likewise tokens of their distinct prompts, by an estimate. It bounds memory, since their texts are kept."""


class CacheSettings(Section):
    max_mib: int = Field(0, ge=0)
    """Judgements that are kept to answer identical requests from, MiB; the oldest go first. 0: none."""
    ttl_s: float = Field(3600, gt=0)
    """So long an identical request gets a judgement that was kept."""


class PrinciplesSettings(Section):
    max_mib: int = Field(16, ge=0)
    """Text of principles drawn for queries that is kept, MiB; the oldest go first."""
    ttl_s: float = Field(86400, gt=0)
    """So long the principles of a query are used again."""


class JudgementSettings(Section):
    ttl_s: float = Field(3600, gt=0)
    """So long `GET /v1/judgements/{id}` returns a judgement."""
    max_mib: int = Field(256, ge=1)
    """Judgements that are kept, texts and log-probabilities of scores, MiB; the oldest go first."""


class SupervisionSettings(Section):
    restarts: int = Field(10, ge=0)
    """An engine that died is started again, unless so many in a row failed to start or died young. 0: never; the
    server then stays not ready, for whoever runs it to restart."""
    settled_s: float = Field(10, gt=0)
    """An engine that lived for so long did not die young."""
    stall_s: float | None = Field(None, gt=0)
    """An engine that shows no step for so long, though it has samples to write or to rate, is treated as dead. None:
    120, on a CPU 300, where one step may compute several whole prompts."""
