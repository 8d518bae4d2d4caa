"""The samples of one request: which are planned, which were begun, and what came back."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Iterable, Sequence

from grm_server.engine.protocol import Outcome, SchedulingClass
from grm_server.errors import DeadlineExceeded
from grm_server.grm.parse import parse
from grm_server.grm.plan import SamplePlan, make_plan
from grm_server.grm.prompts import JudgeTemplate, Sanitized
from grm_server.grm.types import Draw, Failure, FailureReason, Order, Sample, Trajectory
from grm_server.pipeline.in_flight import InFlightSamples, Rate
from grm_server.pipeline.permit import Permit
from grm_server.pipeline.prompt_cache import PromptCache
from grm_server.pipeline.types import ScoreRequest
from grm_server.telemetry.metrics import Metrics


class SampleDraws:
    """See the module. `plan` comes first."""

    def __init__(self, request: ScoreRequest, template: JudgeTemplate, permit: Permit, metrics: Metrics) -> None:
        self._request = request
        self._permit = permit
        self._metrics = metrics
        self._prompter = PromptCache(request, template, permit)
        self._n = len(request.task.responses)
        self._course: SamplePlan
        self.list_size: int
        """Responses that a sample shows at most."""
        self.late = False
        """The deadline has come."""
        self.outcomes: dict[Draw, Trajectory | Failure] = {}
        self._drawn = 0
        self._launched: list[Draw] = []
        self._undropped: tuple[int, int] | None = None
        """How many draws and readings showed all responses; None while all do."""
        self._begun: set[Draw] = set()

    async def plan(self) -> None:
        """Raises PromptTooLong, and DeadlineExceeded, before anything is generated."""
        try:
            self._course, self.list_size = await self._prompter.fitting_course()
        except TimeoutError:
            raise DeadlineExceeded(
                f"its deadline of {self._request.deadline_s:g} s came while its prompts were tokenised; nothing was "
                "generated: allow more time, or send shorter texts",
                details={"finished": 0, "begun": 0},
            ) from None

    @property
    def task(self) -> Sanitized:
        return self._prompter.task

    @property
    def dropped(self) -> bool:
        """Whether some responses did not get all the readings that others got."""
        return self._undropped is not None

    @property
    def begun(self) -> int:
        return len(self._begun)

    @property
    def unfinished(self) -> int:
        """Samples that were begun and not finished."""
        return len(self._begun) - len(self.outcomes)

    @property
    def readings(self) -> float:
        """Readings of each response. A deadline may have cut the last wave, and a round of blocks in its middle."""
        cut = sum(draw not in self.outcomes for draw in self._launched)
        return self._drawn - cut / self._course.per_reading

    def finished(self) -> list[Draw]:
        """In launch order."""
        return [draw for draw in self._launched if draw in self.outcomes]

    def flight(self, rate: Rate | None) -> InFlightSamples:
        """For the samples of this request, until its deadline."""
        rated = None if rate is None else self._counted(rate)
        return InFlightSamples(self._permit.sample, self._request.temperature, self._permit.left_s, self._read, rated)

    async def wave(self, flight: InFlightSamples, *, certain: bool) -> AsyncGenerator[Trajectory | Failure]:
        """Launch the next wave and yield its samples as they finish, until the deadline.

        certain: the wave after it will show the same responses, and may begin early.
        """
        request = self._request
        wave = self._course.wave(self._drawn, request.k) if request.in_waves else self._course.draws
        scheduling = SchedulingClass.CONTINUATION if self._launched else SchedulingClass.NEW
        self._launched += wave
        self._drawn += len(wave) // self._course.per_reading
        await self._begin(flight, wave, scheduling)
        for outcome in [self.outcomes[draw] for draw in wave if draw in self.outcomes]:
            yield outcome
        ahead = self._course.wave(self._drawn, request.k) if certain else ()
        missing = {draw for draw in wave if draw not in self.outcomes}
        while missing:
            spare = self._spare
            await self._begin(flight, ahead[:spare], SchedulingClass.SPECULATIVE)
            ahead = ahead[spare:]
            try:
                draw = await self._land(flight)
            except TimeoutError:
                self.late = True
                return
            if draw in missing:
                missing.remove(draw)
                yield self.outcomes[draw]

    async def rest(self, flight: InFlightSamples) -> None:
        """All k samples that show all responses, while nobody waits.

        Samples of a request that dropped responses do not count from then on: theirs are other lists.
        """
        if self._undropped is not None:
            draws, readings = self._undropped
            self._course = self._replanned(range(self._n), readings)
            rest = list(self._course.draws)
            self._launched = [*self._launched[:draws], *rest]
        else:
            rest = [draw for draw in self._course.draws if draw not in self._launched]
            self._launched += rest
        await self._begin(flight, rest, SchedulingClass.AUDIT, past_deadline=True)
        while not self.outcomes.keys() >= set(rest):
            # Nobody waits, so the deadline, which comes once, means nothing.
            with contextlib.suppress(TimeoutError):
                await self._land(flight)
        self._drawn, self.late, self._undropped = self._request.k, False, None

    def drop_all_but(self, active: Sequence[int]) -> None:
        """The samples from now on show these responses."""
        self._undropped = self._undropped or (len(self._launched), self._drawn)
        self._course = self._replanned(active, self._drawn)

    @property
    def _spare(self) -> int:
        """Samples that may begin before they are known to be needed."""
        if self._permit.contended:
            return 0
        # Those that were begun a moment ago may not be known to the engine yet.
        return max(0, self._request.speculate_below - max(self._permit.running, self.unfinished))

    async def _land(self, flight: InFlightSamples) -> Draw:
        """Wait for the next sample and count it, also for a request that fails in the end."""
        draw, read = await flight.next()
        self.outcomes[draw] = read
        sample = read.sample or Sample({})
        self._metrics.sample(
            "valid" if isinstance(read, Trajectory) else read.reason.value,
            cut=bool(sample.cut),
            prompt=sample.prompt_tokens,
            cached=sample.cached_tokens,
            completion=sample.completion_tokens,
        )
        return draw

    def _counted(self, rate: Rate) -> Rate:
        async def rated(trajectory: Trajectory) -> Trajectory:
            with self._permit.rating():
                return await rate(trajectory)

        return rated

    def _read(self, draw: Draw, outcome: Outcome) -> Trajectory | Failure:
        if isinstance(outcome, Sample):
            return parse(draw, outcome, self._n)
        return Failure(draw, FailureReason.ENGINE_ERROR)

    async def _begin(
        self,
        flight: InFlightSamples,
        draws: Iterable[Draw],
        scheduling: SchedulingClass,
        *,
        past_deadline: bool = False,
    ) -> None:
        """Start those that were not, one engine call for each distinct order.

        Once the deadline has come none is started, unless it is `past_deadline`: whoever waits for them hears of it
        from the flight, after what landed in time.
        """
        by_order: dict[Order, list[Draw]] = defaultdict(list)
        for draw in draws:
            if draw not in self._begun:
                by_order[draw.order].append(draw)
        for order, alike in by_order.items():
            try:
                prepared = await self._prompter.prepare(order, past_deadline=past_deadline)
            except TimeoutError:
                return
            flight.start(alike, prepared, scheduling)
            self._begun.update(alike)
            if self._course.per_reading > 1:
                # Blocks are dealt anew in every round.
                self._prompter.forget(order)

    def _replanned(self, active: Sequence[int], since: int) -> SamplePlan:
        return make_plan(active, self._request.k, self._prompter.seed, self.list_size, since=since, first=self.begun)
