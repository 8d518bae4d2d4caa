"""Deadlines of queued requests, over HTTP with a fake engine."""

import asyncio
import time
from pathlib import Path

from grm_server.engine.fake import FakeEngine
from tests.integration.counting import counters
from tests.integration.load import FULL, answers, loaded


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(tmp_path: Path) -> None:
    engine = FakeEngine(gate=(gate := asyncio.Event()), delay_s=0.05, max_running=4)
    async with loaded(tmp_path, engine, FULL) as server:
        # The server learns the duration of a sample and the throughput.
        gate.set()
        await answers(server.burst(12, k=1))
        gate.clear()
        burst = server.burst(200, k=1)
        await server.until_waiting(196)
        # 196 samples, at most 80 per second. A request that waited would time out (504).
        refused = await server.ask(deadline_s=0.3)
        error = refused.json()["error"]
        assert (refused.status_code, error["code"], error["param"]) == (429, "deadline_unreachable", "deadline_s")
        after_s = int(refused.headers["retry-after"])
        assert after_s >= 1
        gate.set()
        # Another tenant would be served in time.
        assert (await server.ask("other", deadline_s=60)).status_code == 200
        await answers(burst)
        # The queue is empty: the same deadline is accepted, whatever judging usually takes.
        assert (await server.ask(deadline_s=0.3)).status_code != 429
        assert (await server.ask(deadline_s=0.01)).status_code == 504
        metrics = await counters(server.client)
        assert metrics['grm_refused_requests_total{reason="deadline"}'] == 1
        await server.until_empty()


async def test_a_request_times_out_in_the_queue(tmp_path: Path) -> None:
    engine = FakeEngine(gate=(gate := asyncio.Event()))
    async with loaded(tmp_path, engine, FULL) as server:
        burst = server.burst(4)
        await server.until_running(4)
        answer = await server.ask(deadline_s=0.1)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert answer.json()["error"]["details"] == {"finished": 0, "begun": 0}
        assert "timed out in the queue (deadline_s = 0.1)" in answer.json()["error"]["message"]
        assert len(engine.calls) == 4
        gate.set()
        await answers(burst)
        await server.until_empty()


async def test_the_deadline_counts_from_arrival_and_not_from_the_permit(tmp_path: Path) -> None:
    engine = FakeEngine(gate=(gate := asyncio.Event()), delay_s=60)
    async with loaded(tmp_path, engine, FULL) as server:
        burst = [server.begin(deadline_s=4, responses=[f"{i}", "B."]) for i in range(4)]
        await server.until_running(4)
        began_s = time.monotonic()
        queued = server.begin(deadline_s=4.5)
        await server.until_waiting(1)
        # The first four end after 4 s; then the queued request has the rest of its time.
        gate.set()
        assert (await queued).status_code == 504
        assert time.monotonic() - began_s < 8, "and not 4 s and 4.5 s"
        await answers(burst)
        await server.until_empty()
