"""The meta RM's part in one request: each sample is rated as soon as it is written."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace

from grm_server.engine.protocol import MetaRM, Rating
from grm_server.errors import GRMError
from grm_server.grm.prompts import JudgeTemplate, judge_turn, sanitized
from grm_server.grm.types import Order, Trajectory
from grm_server.pipeline.types import ScoreRequest
from grm_server.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Guidance:
    """The meta RM of a server, and how it is used."""

    meta_rm: MetaRM
    template: JudgeTemplate
    p0: float
    """`meta_hinge`: the probability at which a sample's vote is worth nothing."""


class Rater:
    """Rates the samples of one request until the meta RM fails; then it says so and stops."""

    def __init__(self, guidance: Guidance, request: ScoreRequest, metrics: Metrics) -> None:
        self.p0 = guidance.p0
        self._meta_rm = guidance.meta_rm
        self._template = guidance.template
        self._task = sanitized(request.task, guidance.template)
        self._metrics = metrics
        self._fallback_to_plain_vote = request.fallback_to_plain_vote
        self._prompts: dict[Order, tuple[int, ...]] = {}
        self.failed = False
        """The request goes on without: no rating counts, or some samples would vote with guidance and some without."""
        self.ratings: list[Rating] = []

    def raise_if_unavailable(self) -> None:
        """Find out before anything is generated that the meta RM is gone. Raises MetaRMFailed."""
        try:
            self._meta_rm.raise_if_unavailable()
        except GRMError as error:
            self._fail(error)

    async def rated(self, trajectory: Trajectory) -> Trajectory:
        """With its meta reward; without, once the meta RM has failed and `fallback_to_plain_vote` allows that."""
        if self.failed:
            return trajectory
        started_s = time.monotonic()
        try:
            rating = await self._meta_rm.rate(self._prompt(trajectory.draw.order), self._answer(trajectory))
        except GRMError as error:
            self._fail(error)
            return trajectory
        rated_s = time.monotonic()
        self._metrics.rated(rated_s - started_s, prompt=rating.prompt_tokens, cached=rating.cached_tokens)
        self.ratings.append(rating)
        return replace(trajectory, meta_reward=rating.meta_reward, rated_s=rated_s)

    def _prompt(self, order: Order) -> tuple[int, ...]:
        if order not in self._prompts:
            self._prompts[order] = self._meta_rm.prepare(self._template.render(self._task, order))
        return self._prompts[order]

    def _answer(self, trajectory: Trajectory) -> str:
        sample = trajectory.sample
        principles = self._task.principles if sample.principles is None else sample.principles
        shown = [score for i in trajectory.draw.order if (score := trajectory.scores[i]) is not None]
        return judge_turn(principles or "", sample.critique, shown)

    def _fail(self, error: GRMError) -> None:
        self._metrics.unrated()
        if not self._fallback_to_plain_vote:
            raise error
        if not self.failed:
            logger.warning("the meta RM failed, the request goes on with a plain vote: %s", error)
        self.failed = True
