"""The fake engine: slots, recording and the hooks by which tests script it."""

import asyncio
import time

import pytest

from grm_server.app.formats import judge_format
from grm_server.engine.fake import FakeCall, FakeEngine
from grm_server.engine.protocol import LeadTokens, Outcome, Rating, SchedulingClass, TokenizedScript
from grm_server.errors import GenerationFailed
from grm_server.grm.script import Piece, PromptTurn, Sample, Sampling, Script, Segment
from grm_server.meta_rm.fake import FakeMetaRM

VERDICT = Segment("verdict", (), 8, grammar=judge_format().grammars(1)[0])
SCRIPT = Script((PromptTurn("user", (Piece("[The Begin of Response 1]"),)),), (VERDICT,))
PREPARED = TokenizedScript(SCRIPT, (0,), (LeadTokens((), (), ()),))
SAMPLING = Sampling(0.5)


async def scores_of(engine: FakeEngine, seeds: range) -> list[str]:
    """The scores of the samples, in the order of their seeds."""
    outcomes: dict[int, Outcome] = {}
    async for place, outcome in engine.sample(PREPARED, seeds, SAMPLING, SchedulingClass.NEW):
        outcomes[place] = outcome
    return [
        outcome.texts["verdict"] if isinstance(outcome, Sample) else str(outcome)
        for _, outcome in sorted(outcomes.items())
    ]


async def test_samples_beyond_the_slots_wait_and_can_be_aborted() -> None:
    engine = FakeEngine(delay_s=0.05, max_running=2)
    began_s = time.monotonic()
    finished = [place async for place, _ in engine.sample(PREPARED, range(6), SAMPLING, SchedulingClass.NEW)]
    assert sorted(finished) == list(range(6))
    assert time.monotonic() - began_s >= 0.15
    waiting = asyncio.ensure_future(anext(engine.sample(PREPARED, range(100, 106), SAMPLING, SchedulingClass.NEW)))
    await asyncio.sleep(0.01)
    assert engine.running == 6
    waiting.cancel()
    await asyncio.wait((waiting,))
    assert (engine.running, engine.aborted) == (0, 6)


async def test_recording_can_be_switched_off() -> None:
    for recording in (True, False):
        engine, meta_rm = FakeEngine(recording=recording), FakeMetaRM(recording=recording)
        await scores_of(engine, range(1))
        await meta_rm.rate(meta_rm.prepare("Rate this."), "Scores")
        assert bool(engine.calls) == bool(engine.schedulings) == recording
        assert bool(meta_rm.prompts) == bool(meta_rm.answers) == recording


async def test_scripted_outcomes_come_before_the_score_hook_and_the_hash_comes_last() -> None:
    by_hash = await scores_of(FakeEngine(), range(4))
    engine = FakeEngine(["7}", GenerationFailed("cut")], score=lambda call: "9}" if call.seed == 2 else None)
    assert await scores_of(engine, range(4)) == ["7}", "cut", "9}", by_hash[3]]


async def test_a_hook_sees_the_sample_and_what_it_raises_aborts_it() -> None:
    calls: list[FakeCall] = []

    def fails(call: FakeCall) -> str:
        calls.append(call)
        raise ZeroDivisionError

    engine = FakeEngine(score=fails)
    with pytest.raises(ZeroDivisionError):
        await scores_of(engine, range(5, 6))
    assert calls == [FakeCall(0, PREPARED.script, 5, SchedulingClass.NEW)]
    assert calls[0].shown == ["1]"]
    assert (engine.started, engine.aborted, engine.running) == (1, 1, 0)


async def test_the_delay_may_differ_between_samples() -> None:
    engine = FakeEngine(delay_s=lambda call: 60.0 if call.index == 0 else 0.0)
    finished = engine.sample(PREPARED, range(3), SAMPLING, SchedulingClass.NEW)
    assert {(await anext(finished))[0] for _ in range(2)} == {1, 2}
    assert engine.running == 1
    await finished.aclose()
    assert engine.aborted == 1


async def test_samples_wait_at_the_gate() -> None:
    engine = FakeEngine(gate=(gate := asyncio.Event()))
    waiting = asyncio.ensure_future(scores_of(engine, range(3)))
    await asyncio.sleep(0.01)
    assert (engine.running, engine.finished) == (3, 0)
    gate.set()
    await waiting
    assert engine.finished == 3


async def test_a_meta_rm_rates_by_its_hook() -> None:
    meta_rm = FakeMetaRM([0.25], rating=lambda answer: Rating(0.75, len(answer), 2))
    assert (await meta_rm.rate((0,), "abc")).meta_reward == 0.25
    assert await meta_rm.rate((0,), "abc") == Rating(0.75, 3, 2)
