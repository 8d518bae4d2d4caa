"""Judgements by their id, for as long as there is room: why a reward came out as it did."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grm_server.caching.ttl_cache import TTLCache
from grm_server.errors import GRMError, JudgementNotKept
from grm_server.grm.types import Failure, Trajectory
from grm_server.judging.query_principles import Origin, Principles
from grm_server.judging.service import Scoring
from grm_server.judging.spans import traced
from grm_server.pipeline.types import Judgement, ScoreRequest, Started, WaveEnd
from grm_server.telemetry.context import note_error, note_judgement
from grm_server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from grm_server.telemetry.tracing import Tracing

SAMPLE_BYTES, SCORE_TOKEN_BYTES, MATRIX_BYTES = 1000, 3000, 32
"""Of a sample without its texts; of one of its score tokens, with 20 log-probabilities; of a pair of responses."""


def new_id() -> str:
    return f"rw-{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement and what was asked."""

    id: str
    request: ScoreRequest
    """As it was judged, with principles that were drawn for its query."""
    task: str
    """The caller's tag."""
    judgement: Judgement
    principles_from: Origin = "sample"
    principle_tokens: int = 0
    """Generated to draw principles for the query."""


Progress = Started | Trajectory | Failure | WaveEnd | Judged
"""The pipeline's events, and in the end what is kept of them."""


class Judgements:
    """See the module."""

    def __init__(self, max_mib: int, ttl_s: float) -> None:
        self._kept: TTLCache[str, Judged] = TTLCache(max_mib * 2**20, ttl_s)

    def keep(self, judged: Judged) -> Judged:
        self._kept.put(judged.id, judged, chars(judged))
        return judged

    def get(self, judgement_id: str) -> Judged:
        """Raises JudgementNotKept."""
        judged = self._kept.get(judgement_id)
        if judged is None:
            raise JudgementNotKept("there is no such judgement, or it is not kept any more (settings `judgements`)")
        return judged


class Judging:
    """Requests judged to their end, counted and kept."""

    def __init__(
        self,
        scoring: Scoring,
        principles: Principles,
        judgements: Judgements,
        metrics: Metrics,
        tracing: Tracing | None = None,
    ) -> None:
        self.scoring = scoring
        self.principles = principles
        self._tracing = tracing
        self._judgements = judgements
        self._metrics = metrics

    async def events(
        self, judgement_id: str, request: ScoreRequest, task: str, *, anytime: bool = False
    ) -> AsyncGenerator[Progress]:
        """As `Scoring.events`, with principles if they are to be drawn first; the Judgement is kept under the id."""
        arrived_s = time.monotonic()
        with self._metrics.in_flight.track_inprogress(), counted_errors(self._metrics):
            given = await self.principles.given(request, arrived_s)
            judging = self.scoring.events(given.request, task, anytime=anytime, arrived_s=arrived_s)
            if self._tracing is not None:
                judging = traced(judging, self._tracing, judgement_id, given.request)
            async with aclosing(judging) as events:
                async for event in events:
                    if not isinstance(event, Judgement):
                        yield event
                        continue
                    judged = Judged(judgement_id, given.request, task, event, given.origin, given.completion_tokens)
                    note(judged)
                    yield self._judgements.keep(judged)

    async def judge(self, request: ScoreRequest, task: str) -> Judged:
        """Raises what `score` raises."""
        async with aclosing(self.events(new_id(), request, task)) as events:
            async for event in events:
                if isinstance(event, Judged):
                    return event
        raise RuntimeError("the pipeline ended without a judgement")


@contextmanager
def counted_errors(metrics: Metrics) -> Iterator[None]:
    """Count a request that fails, by its error's code."""
    try:
        yield
    except GRMError as error:
        note_error(error.code)
        metrics.requests.labels(error.code).inc()
        raise
    except Exception:
        metrics.requests.labels(GRMError.code).inc()
        raise


def note(judged: Judged) -> None:
    """What the line says of the request that this runs for, and that got this judgement."""
    note_judgement(
        judged.id,
        n=len(judged.request.task.responses),
        k_used=judged.judgement.k_used,
        samples=len(judged.judgement.outcomes),
        stop=judged.judgement.stop_reason.value,
    )


def chars(judged: Judged) -> int:
    """What it takes of room. What is no text counts as so many letters as it has bytes, about."""
    task, n = judged.request.task, len(judged.request.task.responses)
    asked = task.shared_chars + sum(map(len, task.responses)) + MATRIX_BYTES * n * n
    return asked + sum(
        SAMPLE_BYTES + SCORE_TOKEN_BYTES * len(sample.score_tokens) + sum(map(len, sample.texts.values()))
        for sample in judged.judgement.samples
    )
