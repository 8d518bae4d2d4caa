"""Warm-up samples, and engine statistics."""

from types import SimpleNamespace

import pytest

from grm_server.app.templates import judge_template
from grm_server.app.warm_up import SAMPLES, warm_up
from grm_server.engine.fake import FakeEngine
from grm_server.engine.stats import EngineStats, StepStatLogger
from grm_server.errors import EngineDead, GenerationFailed


async def test_samples_of_a_real_prompt_are_drawn() -> None:
    engine = FakeEngine()
    await warm_up(engine, judge_template(None))
    [(script, seeds, _)] = engine.calls
    assert "[The Begin of Response 2]" in script.prompt
    assert len(seeds) == engine.finished == SAMPLES
    assert engine.dead is None


async def test_an_engine_that_dies_during_warm_up_is_closed() -> None:
    engine = FakeEngine()
    engine.dead = EngineDead("killed")
    with pytest.raises(EngineDead):
        await warm_up(engine, judge_template(None))
    assert engine.closed


@pytest.mark.parametrize("engine", [FakeEngine(max_model_len=20), FakeEngine([GenerationFailed("x")] * SAMPLES)])
async def test_failed_warm_up_samples_do_not_prevent_serving(
    engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    await warm_up(engine, judge_template(None))
    assert "warm" in caplog.text
    assert engine.dead is None


def test_stats_are_those_of_the_last_step() -> None:
    cache = SimpleNamespace(hits=64, queries=100)
    stats = SimpleNamespace(
        num_running_reqs=3,
        num_waiting_reqs=2,
        num_skipped_waiting_reqs=1,
        kv_cache_usage=0.5,
        prefix_cache_stats=cache,
    )
    logger = StepStatLogger()
    logger.record(stats, None, mm_cache_stats=None, engine_idx=0)
    logger.record(stats, None)
    logger.record(None, None)
    assert logger.stats == EngineStats(3, running=3, waiting=3, kv_usage=0.5, cached_tokens=128, prompt_tokens=200)
