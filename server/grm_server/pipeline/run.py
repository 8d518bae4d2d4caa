"""One request on its way: what is planned, what was drawn, what is known."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace

import numpy as np

from grm_server.engine.base import Outcome, Sampler, Urgency
from grm_server.engine.flight import Flight
from grm_server.errors import DeadlineExceeded, GRMError, TooFewVotes
from grm_server.grm.evidence import gather, position_effect
from grm_server.grm.meta import guide
from grm_server.grm.parse import parse
from grm_server.grm.plan import Course, course
from grm_server.grm.prompts import JudgeTemplate
from grm_server.grm.reading import REACH, ballots
from grm_server.grm.stopping import decide, may_drop
from grm_server.grm.types import (
    Aggregate,
    Bools,
    Decision,
    Draw,
    Evidence,
    Failure,
    FailureReason,
    Fixed,
    Floats,
    Precision,
    Prior,
    Sample,
    Standing,
    StopReason,
    Trajectory,
    Verdict,
    needs_meta_rm,
)
from grm_server.grm.voting import vote
from grm_server.pipeline.prompter import Prompter
from grm_server.pipeline.rater import Guidance, Rater
from grm_server.pipeline.types import Judgement, ScoreRequest
from grm_server.telemetry.metrics import Metrics


class Run:
    """See the module. `plan`, then `draw_wave` and `decide` take turns until `decision.stop` says why to stop."""

    def __init__(
        self,
        request: ScoreRequest,
        template: JudgeTemplate,
        sampler: Sampler,
        metrics: Metrics,
        prior: Prior,
        guidance: Guidance | None,
    ) -> None:
        self._arrived_s = time.monotonic()
        self._request = request
        self._prompter = Prompter(request, template, sampler)
        self._sampler = sampler
        self._metrics = metrics
        self._prior = prior
        self._n = len(request.task.responses)
        self._rater: Rater | None = None
        if guidance is not None and needs_meta_rm(request.aggregate):
            self._rater = Rater(guidance, self._prompter.task, metrics, unguided=request.unguided)
        self._course: Course
        self.list_size: int
        """Responses that a sample shows at most."""
        self._drawn = 0
        self._late = False
        self._launched: list[Draw] = []
        self._undropped: tuple[int, int] | None = None
        """How many draws and readings showed all responses; None while all do."""
        self._begun: set[Draw] = set()
        self._outcomes: dict[Draw, Trajectory | Failure] = {}
        self.decision = Decision(None, 1.0, Standing(tuple(range(self._n))))
        self.evidence: Evidence
        self._values: Floats
        self._kept: Bools
        self._verdict: Verdict | None = None
        self._first_wave: Floats | None = None

    async def plan(self) -> None:
        """Raises PromptTooLong and MetaRMFailed before anything is generated."""
        self._course, self.list_size = await self._prompter.fitting_course()
        if self._rater is not None:
            self._rater.check()

    @property
    def aggregate(self) -> Aggregate:
        """How samples are added up now."""
        return "mean" if self._rater is not None and self._rater.failed else self._request.aggregate

    @property
    def dropped(self) -> bool:
        """Whether some responses did not get all the readings that others got."""
        return self._undropped is not None

    @property
    def _left_s(self) -> float:
        """Seconds until the deadline."""
        return self._arrived_s + self._request.deadline_s - time.monotonic()

    @property
    def unfinished(self) -> int:
        """Samples that were begun and not finished."""
        return len(self._begun) - len(self._outcomes)

    @property
    def k_used(self) -> int:
        return int(self._readings())

    async def draw_wave(self, flight: Flight) -> AsyncGenerator[Trajectory | Failure]:
        """Launch the next wave and yield its samples as they finish, until the deadline."""
        request, rule = self._request, self._request.stop
        if isinstance(rule, Fixed) or (self._n == 1 and not isinstance(rule, Precision)):
            wave: Sequence[Draw] = self._course.draws
        else:
            wave = self._course.wave(self._drawn, request.k)
        await self._begin(flight, wave, Urgency.BEGUN if self._launched else Urgency.NEW)
        self._launched += wave
        self._drawn += len(wave) // self._course.per_reading
        for outcome in [self._outcomes[draw] for draw in wave if draw in self._outcomes]:
            yield outcome
        ahead = self._next_if_certain()
        missing = {draw for draw in wave if draw not in self._outcomes}
        while missing:
            # Those that were begun a moment ago may not be known to the engine yet.
            busy = max(self._sampler.running, self.unfinished)
            spare = max(0, request.speculate_below - busy)
            await self._begin(flight, ahead[:spare], Urgency.SPECULATIVE)
            ahead = ahead[spare:]
            try:
                draw = await self._land(flight)
            except TimeoutError:
                self._late = True
                return
            if draw in missing:
                missing.remove(draw)
                yield self._outcomes[draw]

    async def draw_rest(self, flight: Flight) -> None:
        """What all k samples say that show all responses, while nobody waits.

        Samples of a request that dropped responses do not count from then on: theirs are other lists.
        """
        everyone = range(self._n)
        if self._undropped is not None:
            draws, readings = self._undropped
            self._course = self._replanned(everyone, readings)
            rest = list(self._course.draws)
            self._launched = [*self._launched[:draws], *rest]
        else:
            rest = [draw for draw in self._course.draws if draw not in self._launched]
            self._launched += rest
        await self._begin(flight, rest, Urgency.AUDIT)
        while not self._outcomes.keys() >= set(rest):
            # Nobody waits, so the deadline, which comes once, means nothing.
            with contextlib.suppress(TimeoutError):
                await self._land(flight)
        self._drawn, self._late, self._undropped = self._request.k, False, None
        self.decision = Decision(None, 1.0, Standing(tuple(everyone)))
        self.decide()

    def decide(self) -> None:
        """Read everything so far and let the rule decide."""
        self._verdict = None
        request, finished, aggregate = self._request, self._finished(), self.aggregate
        reach = self._read_ballots([self._outcomes[draw] for draw in finished], aggregate)
        if self._first_wave is None and not self._late:
            self._first_wave = self._values
        orders = [draw.order for draw in finished]
        self.evidence = gather(self._values, orders, self._prior, blocks=self.list_size < self._n)
        drawn, before = self._readings(), self.decision.standing
        if drawn:
            self.decision = decide(
                request.stop,
                self.evidence,
                self._values,
                drawn,
                request.k,
                before,
                reach=reach,
                droppable=may_drop(request.stop, self._n, aggregate),
                min_votes=request.min_votes,
            )
        if self._late:
            self.decision = replace(self.decision, stop=StopReason.DEADLINE)
        elif self.decision.standing.active != before.active:
            self._undropped = self._undropped or (len(self._launched), self._drawn)
            self._course = self._replanned(self.decision.standing.active, self._drawn)

    def _read_ballots(self, outcomes: Sequence[Trajectory | Failure], aggregate: Aggregate) -> float:
        """Set the ballots and who votes; returns their reach."""
        request = self._request
        if self._rater is None or not needs_meta_rm(aggregate):
            self._values = ballots(outcomes, self._n, request.reading, aggregate)
            self._kept = np.any(~np.isnan(self._values), axis=1)
            return REACH[aggregate]
        rewards = [outcome.meta_reward if isinstance(outcome, Trajectory) else None for outcome in outcomes]
        scores = ballots(outcomes, self._n, request.reading, "mean")
        guided = guide(scores, rewards, aggregate, p0=self._rater.p0, k_meta=request.k_meta, k=request.k)
        self._values, self._kept = guided.ballots, guided.kept
        return guided.reach

    def verdict(self) -> Verdict:
        """What everything read so far adds up to: found once, for the last wave's event and the answer alike."""
        if self._verdict is None:
            self._verdict = self._vote()
        return self._verdict

    def _vote(self) -> Verdict:
        finished = self._finished()
        trajectories = [
            outcome
            for draw, kept in zip(finished, self._kept, strict=True)
            if kept and isinstance(outcome := self._outcomes[draw], Trajectory)
        ]
        effect = position_effect(self._values, [draw.order for draw in finished], self.evidence.means)
        early = self.decision.stop in (StopReason.DECIDED, StopReason.STRICT)
        return vote(self.evidence, trajectories, effect, shrink=early)

    def judgement(self) -> Judgement:
        """The answer. Raises TooFewVotes or DeadlineExceeded."""
        outcomes = tuple(self._outcomes[draw] for draw in self._finished())
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
            first_wave=self._first_wave if self.aggregate == self._request.aggregate else None,
            aggregate=self.aggregate,
            kept=tuple(map(bool, self._kept)),
            ratings=() if self._rater is None else tuple(self._rater.ratings),
            dropped=self.dropped,
            arrived_s=self._arrived_s,
            # The engine's clock is read in another process; a hair before arrival means at once.
            queue_s=max(0.0, started_s - self._arrived_s),
            generate_s=max(sample.finished_s for sample in samples) - started_s,
            total_s=time.monotonic() - self._arrived_s,
        )

    def _too_few(self, outcomes: Sequence[Trajectory | Failure]) -> GRMError:
        fewest, wanted = int(self.evidence.shown.min()), self._request.min_votes
        failures = Counter(outcome.reason.value for outcome in outcomes if isinstance(outcome, Failure))
        if self._late:
            return DeadlineExceeded(
                f"after {self._request.deadline_s:g} s a response has {fewest} scores, {wanted} are needed; "
                "allow more time, or ask for fewer tokens",
                details={"finished": len(outcomes), "begun": len(self._begun), **failures},
            )
        return TooFewVotes(
            f"of {len(outcomes)} samples {fewest} gave a response scores, {wanted} were asked for", details=failures
        )

    def _readings(self) -> float:
        """Readings of each response. A deadline may have cut the last wave, and a round of blocks in its middle."""
        cut = sum(draw not in self._outcomes for draw in self._launched)
        return self._drawn - cut / self._course.per_reading

    def _finished(self) -> list[Draw]:
        return [draw for draw in self._launched if draw in self._outcomes]

    async def _land(self, flight: Flight) -> Draw:
        """Wait for the next sample and count it, also for a request that fails in the end."""
        draw, read = await flight.next()
        self._outcomes[draw] = read
        sample = read.sample or Sample({})
        self._metrics.sample(
            "valid" if isinstance(read, Trajectory) else read.reason.value,
            cut=bool(sample.cut),
            prompt=sample.prompt_tokens,
            cached=sample.cached_tokens,
            completion=sample.completion_tokens,
        )
        return draw

    def flight(self) -> Flight:
        """For the samples of this request, until its deadline."""
        rate = None if self._rater is None else self._rater.rated
        return Flight(self._sampler, self._request.temperature, self._left_s, self._read, rate)

    def _read(self, draw: Draw, outcome: Outcome) -> Trajectory | Failure:
        if isinstance(outcome, Sample):
            return parse(draw, outcome, self._n)
        return Failure(draw, FailureReason.ENGINE_ERROR)

    async def _begin(self, flight: Flight, draws: Iterable[Draw], urgency: Urgency) -> None:
        new = [draw for draw in draws if draw not in self._begun]
        flight.start(new, await self._prompter.prepare(draw.order for draw in new), urgency)
        self._begun.update(new)

    def _next_if_certain(self) -> Sequence[Draw]:
        """The draws of the wave after this one, unless it may have other responses."""
        request = self._request
        if may_drop(request.stop, self._n, self.aggregate):
            return ()
        return self._course.wave(self._drawn, request.k)

    def _replanned(self, active: Sequence[int], since: int) -> Course:
        first = len(self._begun)
        return course(active, self._request.k, self._prompter.seed, self.list_size, since=since, first=first)
