"""Background audits of early stops: do all k samples agree with the answer that was given?"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing

from grm_server.grm.plan import request_seed
from grm_server.grm.stopping import Decided, StopRule
from grm_server.pipeline.loop import auditable
from grm_server.pipeline.types import Event, Judgement, ScoreRequest
from grm_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)

MAX_AUDITS = 4
"""Audits that run at the same time; more are skipped."""
AUDIT_S = 900.0
"""Timeout. Audits have the lowest priority: on a busy engine one may never run, and must not block the others."""


class Audits:
    """The audits of one engine's answers."""

    def __init__(self, share: float, metrics: Metrics) -> None:
        """share: of the requests with rule `decided`, 0..1."""
        self._share = share
        self._metrics = metrics
        self._key = secrets.token_bytes(16)
        self._tasks: set[asyncio.Task[None]] = set()

    def selects(self, request: ScoreRequest) -> bool:
        """Whether to audit a request, by a hash of its content under a key that clients cannot know."""
        content = str(request_seed(request.seed, request.task)).encode()
        digest = hashlib.blake2b(content, key=self._key, digest_size=8).digest()
        return int.from_bytes(digest) < self._share * 2**64

    def start(self, events: AsyncGenerator[Event], answer: Judgement, rule: StopRule) -> bool:
        """Take over the pipeline's events and draw the rest in the background. False: the caller still owns them."""
        if not auditable(answer) or not isinstance(rule, Decided):
            return False
        if len(self._tasks) >= MAX_AUDITS:
            self._metrics.audits.labels("skipped").inc()
            return False
        audit = asyncio.ensure_future(self._audit(events, answer, rule.target == "ranking"))
        self._tasks.add(audit)
        audit.add_done_callback(self._tasks.discard)
        return True

    async def close(self) -> None:
        """Abort the running audits."""
        for audit in self._tasks:
            audit.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _audit(self, events: AsyncGenerator[Event], answer: Judgement, ranking: bool) -> None:
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
        early_ranking, full_ranking = answer.verdict.ranking, full.verdict.ranking
        agrees = early_ranking == full_ranking if ranking else early_ranking[0] == full_ranking[0]
        self._metrics.audits.labels("agree" if agrees else "disagree").inc()
        logger.info(
            "audit: %s at k=%d with a predicted risk of %.3f; with k=%d whole lists, the %s is %s",
            answer.stop_reason.value,
            answer.k_used,
            answer.risk,
            full.k_used,
            "ranking" if ranking else "best response",
            "the same" if agrees else "different",
        )
