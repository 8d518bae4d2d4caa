"""Fake engines that die, hang or fail to start on command, and a supervised judge around them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from grm_server.engine.fake import FakeEngine
from grm_server.engine.protocol import JudgeEngine
from grm_server.errors import EngineDead
from grm_server.supervision.restart_policy import RestartPolicy
from grm_server.supervision.supervised_engines import SupervisedJudgeEngine
from grm_server.supervision.supervisor import Supervisor
from grm_server.telemetry.metrics import Metrics

CAUSE = "the engine's process was killed by signal 9"
SETTLED = RestartPolicy(restarts=10, settled_s=0)
"""No death counts as a failed start."""


class Engines:
    """Starts fake judges and keeps them. `fails`: errors of the next starts, in order; None succeeds."""

    def __init__(
        self, *, delay_s: float = 0.05, start_s: float = 0.0, build: Callable[[], FakeEngine] | None = None
    ) -> None:
        """`start_s`: how long a restart takes. `build`: makes an engine; None: one whose samples take `delay_s`."""
        self.all: list[FakeEngine] = []
        self.build = build
        self.delay_s = delay_s
        self.start_s = start_s
        self.fails: list[Exception | None] = []
        self.starts = 0

    @property
    def last(self) -> FakeEngine:
        return self.all[-1]

    async def start(self) -> JudgeEngine:
        self.starts += 1
        if self.starts > 1:
            await asyncio.sleep(self.start_s)
        if self.fails and (failure := self.fails.pop(0)):
            raise failure
        self.all.append(FakeEngine(delay_s=self.delay_s) if self.build is None else self.build())
        return self.last

    def kill(self) -> None:
        self.last.dead = EngineDead(CAUSE)


@asynccontextmanager
async def supervised(
    engines: Engines, policy: RestartPolicy = SETTLED, *, stall_s: float = 60, metrics: Metrics | None = None
) -> AsyncIterator[SupervisedJudgeEngine]:
    metrics = metrics or Metrics()
    progress: Callable[[JudgeEngine], tuple[bool, int]] = lambda one: (one.running > 0, one.stats.steps)  # noqa: E731
    supervisor = Supervisor("engine", engines.start, policy, metrics, progress=progress, stall_s=stall_s)
    await supervisor.begin()
    engine = SupervisedJudgeEngine(supervisor, metrics)
    try:
        yield engine
    finally:
        await engine.close()


async def until(condition: Callable[[], Any], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def status(client: httpx.AsyncClient) -> tuple[int, str]:
    response = await client.get("/health/ready")
    return response.status_code, response.json()["reason"] or ""
