"""One request on its way: what its samples say, and when they are enough."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import numpy as np

from grm_server.errors import DeadlineExceeded, GRMError, TooFewVotes
from grm_server.grm.aggregates import AGGREGATES
from grm_server.grm.ballots import ballots
from grm_server.grm.evidence import gather, position_effect
from grm_server.grm.meta import guide
from grm_server.grm.prompts import JudgeTemplate
from grm_server.grm.stopping import decide, may_drop
from grm_server.grm.types import (
    Aggregate,
    Bools,
    Contenders,
    Decision,
    Evidence,
    Failure,
    Floats,
    Prior,
    StopReason,
    Trajectory,
    Verdict,
    needs_meta_rm,
)
from grm_server.grm.voting import vote
from grm_server.pipeline.in_flight import InFlightSamples
from grm_server.pipeline.permit import Permit
from grm_server.pipeline.rating import Guidance, Rater
from grm_server.pipeline.sample_draws import SampleDraws
from grm_server.pipeline.types import Judgement, ScoreRequest
from grm_server.telemetry.metrics import Metrics


class Run:
    """See the module. `plan`, then `draw_wave` and `decide` take turns until `decision.stop` says why to stop."""

    def __init__(
        self,
        request: ScoreRequest,
        template: JudgeTemplate,
        permit: Permit,
        metrics: Metrics,
        prior: Prior,
        guidance: Guidance | None,
    ) -> None:
        self._arrived_s = permit.arrived_s
        self._request = request
        self._prior = prior
        self._n = len(request.task.responses)
        self._drawing = SampleDraws(request, template, permit, metrics)
        self._rater: Rater | None = None
        if guidance is not None and needs_meta_rm(request.aggregate):
            self._rater = Rater(
                guidance, self._drawing.task, metrics, fallback_to_plain_vote=request.fallback_to_plain_vote
            )
        self.decision = Decision(None, 1.0, Contenders(tuple(range(self._n))))
        self.evidence: Evidence
        self._values: Floats
        self._kept: Bools
        self._aggregate: Aggregate
        """How the ballots were read."""
        self._verdict: Verdict | None = None
        self._first_wave: Floats | None = None

    async def plan(self) -> None:
        """Raises PromptTooLong, DeadlineExceeded and MetaRMFailed before anything is generated."""
        await self._drawing.plan()
        if self._rater is not None:
            self._rater.raise_if_unavailable()

    @property
    def list_size(self) -> int:
        """Responses that a sample shows at most."""
        return self._drawing.list_size

    @property
    def aggregate(self) -> Aggregate:
        """How samples are added up now."""
        return "mean" if self._rater is not None and self._rater.failed else self._request.aggregate

    @property
    def unfinished(self) -> int:
        """Samples that were begun and not finished."""
        return self._drawing.unfinished

    @property
    def k_used(self) -> int:
        return int(self._drawing.readings)

    def flight(self) -> InFlightSamples:
        """For the samples of this request, until its deadline."""
        return self._drawing.flight(None if self._rater is None else self._rater.rated)

    def draw_wave(self, flight: InFlightSamples) -> AsyncGenerator[Trajectory | Failure]:
        """Launch the next wave and yield its samples as they finish, until the deadline."""
        return self._drawing.wave(flight, certain=not may_drop(self._request.stop, self._n, self.aggregate))

    async def draw_rest(self, flight: InFlightSamples) -> None:
        """What all k samples say that show all responses, while nobody waits."""
        await self._drawing.rest(flight)
        self.decision = Decision(None, 1.0, Contenders(tuple(range(self._n))))
        self.decide()

    def decide(self) -> None:
        """Read everything so far and let the rule decide."""
        self._verdict = None
        request, drawing, finished, aggregate = self._request, self._drawing, self._drawing.finished(), self.aggregate
        ballot_range = self._read_ballots([drawing.outcomes[draw] for draw in finished], aggregate)
        self._aggregate = aggregate
        if self._first_wave is None and not drawing.late:
            self._first_wave = self._values
        orders = [draw.order for draw in finished]
        self.evidence = gather(self._values, orders, self._prior, blocks=self.list_size < self._n)
        drawn, before = drawing.readings, self.decision.contenders
        if drawn:
            self.decision = decide(
                request.stop,
                self.evidence,
                self._values,
                drawn,
                request.k,
                before,
                ballot_range=ballot_range,
                droppable=may_drop(request.stop, self._n, aggregate),
                min_votes=request.min_votes,
            )
        if drawing.late:
            self.decision = replace(self.decision, stop=StopReason.DEADLINE)
        elif self.decision.contenders.active != before.active:
            drawing.drop_all_but(self.decision.contenders.active)

    def _read_ballots(self, outcomes: Sequence[Trajectory | Failure], aggregate: Aggregate) -> float:
        """Set the ballots and who votes; returns their reach."""
        request = self._request
        if self._rater is None or not needs_meta_rm(aggregate):
            self._values = ballots(outcomes, self._n, request.reading, aggregate)
            self._kept = np.any(~np.isnan(self._values), axis=1)
            return AGGREGATES[aggregate].ballot_range
        rewards = [outcome.meta_reward if isinstance(outcome, Trajectory) else None for outcome in outcomes]
        scores = ballots(outcomes, self._n, request.reading, "mean")
        guided = guide(
            scores,
            rewards,
            aggregate,
            p0=self._rater.p0,
            k_meta=request.k_meta,
            k=request.k,
            min_votes=request.min_votes,
        )
        self._values, self._kept = guided.ballots, guided.kept
        return guided.ballot_range

    def verdict(self) -> Verdict:
        """What everything read so far adds up to: found once, for the last wave's event and the answer alike."""
        if self._verdict is None:
            self._verdict = self._vote()
        return self._verdict

    def _vote(self) -> Verdict:
        finished = self._drawing.finished()
        trajectories = [
            outcome
            for draw, kept in zip(finished, self._kept, strict=True)
            if kept and isinstance(outcome := self._drawing.outcomes[draw], Trajectory)
        ]
        effect = position_effect(self._values, [draw.order for draw in finished], self.evidence.means)
        early = self.decision.stop in (StopReason.DECIDED, StopReason.STRICT)
        return vote(self.evidence, trajectories, effect, shrink=early)

    def judgement(self) -> Judgement:
        """The answer. Raises TooFewVotes or DeadlineExceeded."""
        outcomes = tuple(self._drawing.outcomes[draw] for draw in self._drawing.finished())
        if self.decision.stop is None:
            raise RuntimeError("there is no judgement before a decision")
        if self.evidence.shown.min() < self._request.min_votes:
            raise self._too_few(outcomes)
        samples = [outcome.sample for outcome in outcomes if outcome.sample is not None]
        started_s = min(sample.started_s for sample in samples)
        return Judgement(
            verdict=self.verdict(),
            outcomes=outcomes,
            stop_reason=self.decision.stop,
            risk=self.decision.risk,
            k_used=self.k_used,
            list_size=self.list_size,
            # Of one that lost its meta RM on the way it is of two kinds.
            first_wave=self._first_wave if self._aggregate == self._request.aggregate else None,
            # The meta RM may have failed since.
            aggregate=self._aggregate,
            kept=tuple(map(bool, self._kept)),
            ratings=() if self._rater is None else tuple(self._rater.ratings),
            dropped=self._drawing.dropped,
            arrived_s=self._arrived_s,
            # The engine's clock is read in another process; a hair before arrival means at once.
            queue_s=max(0.0, started_s - self._arrived_s),
            generate_s=max(sample.finished_s for sample in samples) - started_s,
            total_s=time.monotonic() - self._arrived_s,
        )

    def _too_few(self, outcomes: Sequence[Trajectory | Failure]) -> GRMError:
        fewest, wanted = int(self.evidence.shown.min()), self._request.min_votes
        failures = Counter(outcome.reason.value for outcome in outcomes if isinstance(outcome, Failure))
        if self._drawing.late:
            return DeadlineExceeded(
                f"after {self._request.deadline_s:g} s a response has {fewest} scores, {wanted} are needed; "
                "allow more time, or ask for fewer tokens",
                details={"finished": len(outcomes), "begun": self._drawing.begun, **failures},
            )
        return TooFewVotes(
            f"of {len(outcomes)} samples {fewest} gave a response scores, {wanted} were asked for", details=failures
        )
