"""Requests as the server sees them: with what earlier ones taught, and now and then watched to the end."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from grm_server.admission.controller import Admission
from grm_server.engine.protocol import JudgeEngine
from grm_server.grm.prompts import JudgeTemplate
from grm_server.grm.types import Decided, StopReason, StopRule
from grm_server.judging.calibration import Calibration
from grm_server.judging.priors_store import Key, PriorStore
from grm_server.pipeline.loop import auditable, score
from grm_server.pipeline.rating import Guidance
from grm_server.pipeline.types import Event, Judgement, ScoreRequest
from grm_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

AUDITS_AT_ONCE = 4
AUDIT_S = 900.0
"""Last in the queue of a busy engine, an audit may never get its turn; it must not keep others from theirs."""


class Scoring:
    """One engine and what traffic has taught about it."""

    def __init__(
        self,
        template: JudgeTemplate,
        engine: JudgeEngine,
        admission: Admission,
        metrics: Metrics,
        priors: PriorStore,
        guidance: Guidance | None = None,
        *,
        audit_share: float,
        calibration: Calibration | None = None,
    ) -> None:
        self.engine = engine
        self.meta_rm = None if guidance is None else guidance.meta_rm
        self.tau = calibration.tau if calibration is not None and calibration.model == engine.model else None
        """The label temperature's parameter; None without a calibration for this model."""
        self._template = template
        self.admission = admission
        self._metrics = metrics
        self._priors = priors
        self._guidance = guidance
        self._audit_share = audit_share
        self._audit_key = secrets.token_bytes(16)
        self._audits: set[asyncio.Task[None]] = set()

    async def events(
        self, request: ScoreRequest, task: str, *, arrived_s: float, anytime: bool = False
    ) -> AsyncGenerator[Event]:
        """The pipeline's events, from the request's turn to its answer. Raises what `Admission.permit` and `score`
        raise; closing it aborts the samples.

        task: the caller's tag for requests that are alike; they share a prior. arrived_s: see `Admission.permit`.
        """
        key = Key(self.engine.model, task, request.aggregate)
        audit = self._chosen(request)
        async with self.admission.permit(request, arrived_s) as permit:
            events = score(
                request,
                self._template,
                permit,
                self._metrics,
                self._priors.prior(key),
                self._guidance,
                anytime=anytime,
                audit=audit,
            )
            handed_over = False
            try:
                async for event in events:
                    if isinstance(event, Judgement):
                        permit.answered(in_time=event.stop_reason is not StopReason.DEADLINE)
                        # A first wave that a deadline cut is what finished first, not what was drawn first.
                        if event.first_wave is not None:
                            self._priors.observe(key, event.first_wave)
                        handed_over = audit and self._start_audit(events, event, request.stop)
                    yield event
                    if isinstance(event, Judgement):
                        return
            finally:
                if not handed_over:
                    await events.aclose()

    async def close(self) -> None:
        """Abort the audits and write down what was learnt."""
        for audit in self._audits:
            audit.cancel()
        if self._audits:
            await asyncio.wait(self._audits)
        self._priors.save()

    def _start_audit(self, events: AsyncGenerator[Event], answered: Judgement, rule: StopRule) -> bool:
        """Whether the events go on in the background."""
        if not auditable(answered) or not isinstance(rule, Decided):
            return False
        if len(self._audits) >= AUDITS_AT_ONCE:
            self._metrics.audits.labels("skipped").inc()
            return False
        audit = asyncio.ensure_future(self._audit(events, answered, rule.target == "ranking"))
        self._audits.add(audit)
        audit.add_done_callback(self._audits.discard)
        return True

    async def _audit(self, events: AsyncGenerator[Event], answered: Judgement, ranking: bool) -> None:
        """Draw the samples that were spared and see whether they would have decided otherwise."""
        try:
            async with aclosing(events), asyncio.timeout(AUDIT_S):
                full = await anext(events)
        except TimeoutError:
            self._metrics.audits.labels("expired").inc()
            return
        except Exception as error:
            logger.warning("an audit failed: %s", type(error).__name__)
            self._metrics.audits.labels("failed").inc()
            return
        assert isinstance(full, Judgement)
        one, other = answered.verdict.ranking, full.verdict.ranking
        agrees = one == other if ranking else one[0] == other[0]
        self._metrics.audits.labels("agree" if agrees else "disagree").inc()
        logger.info(
            "audit: %s at k=%d with a predicted risk of %.3f; of k=%d whole lists the %s is %s",
            answered.stop_reason.value,
            answered.k_used,
            answered.risk,
            full.k_used,
            "ranking" if ranking else "best response",
            "the same" if agrees else "another",
        )

    def _chosen(self, request: ScoreRequest) -> bool:
        """A share of the requests, by a hash of what they say, under a key that callers cannot know."""
        said = repr((request.task.query, request.task.responses, request.seed)).encode("utf-8", "replace")
        digest = hashlib.blake2b(said, key=self._audit_key, digest_size=8).digest()
        return int.from_bytes(digest) < self._audit_share * 2**64
