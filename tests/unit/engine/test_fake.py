"""The fake engine as a stand-in for a busy one."""

import asyncio
import time

from grm_server.engine.fake import FakeSampler
from grm_server.engine.protocol import Prepared, Urgency
from grm_server.grm.types import Script, Segment

PREPARED = Prepared(Script("[The Begin of Response 1]", (Segment("scores", "", 8),)), ((0,),))


async def test_samples_beyond_the_slots_wait_and_can_be_aborted() -> None:
    sampler = FakeSampler(delay_s=0.05, max_running=2)
    began_s = time.monotonic()
    finished = [place async for place, _ in sampler.sample(PREPARED, range(6), 0.5, Urgency.NEW)]
    assert sorted(finished) == list(range(6))
    assert time.monotonic() - began_s >= 0.15
    waiting = asyncio.ensure_future(anext(sampler.sample(PREPARED, range(100, 106), 0.5, Urgency.NEW)))
    await asyncio.sleep(0.01)
    assert sampler.running == 6
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert (sampler.running, sampler.aborted) == (0, 6)


async def test_a_server_that_runs_on_records_nothing() -> None:
    for recording in (True, False):
        sampler = FakeSampler(recording=recording)
        async for _ in sampler.sample(PREPARED, (1,), 0.5, Urgency.NEW):
            pass
        assert bool(sampler.calls) == bool(sampler.urgencies) == recording
