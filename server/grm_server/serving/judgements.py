"""Judgements by their id, for as long as there is room: why a reward came out as it did."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass

from grm_server.errors import GRMError, JudgementNotKept
from grm_server.pipeline.types import Event, Judgement, ScoreRequest
from grm_server.serving.kept import Kept
from grm_server.serving.scoring import Scoring
from grm_server.telemetry.metrics import Metrics


def new_id() -> str:
    return f"rw-{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement and what was asked."""

    id: str
    request: ScoreRequest
    task: str
    """The caller's tag."""
    judgement: Judgement


class Judgements:
    """See the module. Texts are what takes room, so they are counted."""

    def __init__(self, max_mib: int, ttl_s: float) -> None:
        self._kept: Kept[str, Judged] = Kept(max_mib * 2**20, ttl_s)

    def keep(self, judged: Judged) -> Judged:
        self._kept.put(judged.id, judged, _letters(judged))
        return judged

    def get(self, judgement_id: str) -> Judged:
        """Raises JudgementNotKept."""
        judged = self._kept.get(judgement_id)
        if judged is None:
            raise JudgementNotKept("there is no such judgement, or it is not kept any more (settings `judgements`)")
        return judged


class Judging:
    """Requests judged to their end, counted and kept."""

    def __init__(self, scoring: Scoring, judgements: Judgements, metrics: Metrics) -> None:
        self.scoring = scoring
        self._judgements = judgements
        self._metrics = metrics

    async def events(
        self, judgement_id: str, request: ScoreRequest, task: str, *, anytime: bool = False
    ) -> AsyncGenerator[Event]:
        """As `Scoring.events`; the Judgement is kept under the id."""
        with self._metrics.in_flight.track_inprogress(), counted_errors(self._metrics):
            async with aclosing(self.scoring.events(request, task, anytime=anytime)) as events:
                async for event in events:
                    if isinstance(event, Judgement):
                        self._judgements.keep(Judged(judgement_id, request, task, event))
                    yield event

    async def judge(self, request: ScoreRequest, task: str) -> Judged:
        """Raises what `score` raises."""
        judgement_id = new_id()
        async with aclosing(self.events(judgement_id, request, task)) as events:
            async for event in events:
                if isinstance(event, Judgement):
                    return Judged(judgement_id, request, task, event)
        raise RuntimeError("the pipeline ended without a judgement")


@contextmanager
def counted_errors(metrics: Metrics) -> Iterator[None]:
    """Count a request that fails, by its error's code."""
    try:
        yield
    except GRMError as error:
        metrics.requests.labels(error.code).inc()
        raise


def _letters(judged: Judged) -> int:
    task = judged.request.task
    asked = sum(len(message.content) for message in task.query) + sum(map(len, task.responses))
    # A sample without text takes room too.
    return asked + sum(1000 + sum(map(len, sample.texts.values())) for sample in judged.judgement.samples)
