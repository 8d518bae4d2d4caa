"""The fake engine under load."""

import asyncio
import time

from grm_server.engine.fake import FakeEngine
from grm_server.engine.protocol import SchedulingClass, TokenizedScript
from grm_server.grm.types import Script, Segment

PREPARED = TokenizedScript(Script("[The Begin of Response 1]", (Segment("scores", "", 8),)), ((0,),))


async def test_samples_beyond_the_slots_wait_and_can_be_aborted() -> None:
    engine = FakeEngine(delay_s=0.05, max_running=2)
    began_s = time.monotonic()
    finished = [place async for place, _ in engine.sample(PREPARED, range(6), 0.5, SchedulingClass.NEW)]
    assert sorted(finished) == list(range(6))
    assert time.monotonic() - began_s >= 0.15
    waiting = asyncio.ensure_future(anext(engine.sample(PREPARED, range(100, 106), 0.5, SchedulingClass.NEW)))
    await asyncio.sleep(0.01)
    assert engine.running == 6
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert (engine.running, engine.aborted) == (0, 6)


async def test_recording_can_be_switched_off() -> None:
    for recording in (True, False):
        engine = FakeEngine(recording=recording)
        async for _ in engine.sample(PREPARED, (1,), 0.5, SchedulingClass.NEW):
            pass
        assert bool(engine.calls) == bool(engine.schedulings) == recording
