"""Engines that die or hang, with fakes that do so on command."""

import asyncio
import time
from collections.abc import Callable

import pytest

from grm_server.engine.fake import FakeCall, FakeEngine
from grm_server.engine.protocol import RatingEngine
from grm_server.errors import EngineDead, MetaRMFailed
from grm_server.meta_rm.fake import FakeMetaRM
from grm_server.supervision import supervisor as supervisor_module
from grm_server.supervision.supervised_engines import MAX_DEATHS, SupervisedMetaRM
from grm_server.supervision.supervisor import Supervisor
from grm_server.telemetry.metrics import Metrics
from tests.integration.conftest import Serve
from tests.integration.engines import CAUSE, SETTLED, Engines, status, supervised, until
from tests.integration.judging import PAIR, post, stalls_after


@pytest.fixture(autouse=True)
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "POLL_S", 0.01)


async def test_a_request_survives_its_engine_and_gets_the_same_answer(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        undisturbed = await post(client, return_samples=True)
    engines, metrics = Engines(start_s=0.05), Metrics()
    async with supervised(engines, metrics=metrics) as engine, serve(engine) as client:
        call = asyncio.create_task(post(client, return_samples=True))
        await until(lambda: engines.last.running)
        engines.kill()
        answer = await call
        assert await status(client) == (200, "")
    assert len(engines.all) == 2
    assert answer["rewards"] == undisturbed["rewards"]
    assert [s["scores"] for s in answer["samples"]] == [s["scores"] for s in undisturbed["samples"]]
    text = metrics.exposition().decode()
    assert 'grm_engine_restarts_total{engine="engine",outcome="restarted"} 1.0' in text
    assert "grm_samples_replayed_total 16.0" in text
    assert [one.running for one in engines.all] == [0, 0]


async def test_only_missing_samples_are_retried(serve: Serve) -> None:
    first, metrics = FakeEngine(delay_s=stalls_after(10)), Metrics()
    engines = Engines(build=lambda: FakeEngine() if engines.all else first)
    async with supervised(engines, metrics=metrics) as engine, serve(engine) as client:
        call = asyncio.create_task(post(client))
        await until(lambda: b'grm_samples_total{outcome="valid"} 10.0' in client.service.metrics.exposition())
        first.dead = EngineDead(CAUSE)
        assert (await call)["k_valid"] == 16
    assert engines.last.started == 6
    assert "grm_samples_replayed_total 6.0" in metrics.exposition().decode()


async def test_not_ready_during_a_restart_while_new_requests_wait(serve: Serve) -> None:
    engines = Engines(start_s=0.3)
    async with supervised(engines) as engine, serve(engine) as client:
        engines.kill()
        code, reason = await status(client)
        assert code == 503
        assert CAUSE in reason
        await until(lambda: engines.starts == 2)
        code, reason = await status(client)
        assert code == 503
        assert "under way" in reason
        assert (await client.get("/health/live")).status_code == 200
        assert (await post(client))["k_valid"] == 16
        assert await status(client) == (200, "")


async def test_an_engine_that_dies_idle_is_replaced(serve: Serve) -> None:
    engines = Engines()
    async with supervised(engines) as engine, serve(engine) as client:
        for _ in range(3):
            engines.kill()
            await until(lambda: not engines.last.dead)
        assert len(engines.all) == 4
        assert (await post(client))["k_valid"] == 16


async def test_a_hung_engine_is_treated_as_dead(serve: Serve) -> None:
    engines = Engines(delay_s=60)
    async with supervised(engines, stall_s=0.2) as engine, serve(engine) as client:
        await asyncio.sleep(0.4)
        assert len(engines.all) == 1, "an idle engine is not hung"
        call = asyncio.create_task(post(client))
        await until(lambda: engines.last.running)
        engines.delay_s = 0
        assert (await call)["k_valid"] == 16
    assert len(engines.all) == 2
    assert engines.all[0].dead
    assert [one.running for one in engines.all] == [0, 0]


async def test_a_slow_engine_is_not_hung(serve: Serve) -> None:
    # One sample every 0.05 s, for much longer than `stall_s` in all.
    engines = Engines(build=lambda: FakeEngine(delay_s=lambda call: 0.05 * (1 + call.index)))
    async with supervised(engines, stall_s=0.2) as engine, serve(engine) as client:
        assert (await post(client))["k_valid"] == 16
    assert len(engines.all) == 1


async def test_a_request_that_kills_every_engine_fails_before_the_server_does(serve: Serve) -> None:
    def dies_of_poison(call: FakeCall) -> None:
        if "poison" in call.script.prompt:
            engines.kill()

    engines = Engines(build=lambda: FakeEngine(score=dies_of_poison))
    async with supervised(engines) as engine, serve(engine) as client:
        poison = await client.post("/v1/rewards", json=PAIR | {"query": "poison"})
        assert (poison.status_code, poison.json()["error"]["code"]) == (503, "engine_dead")
        assert (await post(client))["k_valid"] == 16
    assert engines.starts == MAX_DEATHS + 1


async def test_the_deadline_holds_during_a_restart(serve: Serve) -> None:
    engines = Engines(start_s=60)
    async with supervised(engines) as engine, serve(engine) as client:
        engines.kill()
        began_s = time.monotonic()
        response = await client.post("/v1/rewards", json=PAIR | {"deadline_s": 0.3})
        assert 0.2 < time.monotonic() - began_s < 2
        assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert engine.running == 0


async def test_a_client_can_disconnect_during_a_restart(serve: Serve) -> None:
    engines, metrics = Engines(start_s=0.2), Metrics()
    async with supervised(engines, metrics=metrics) as engine, serve(engine) as client:
        call = asyncio.create_task(post(client))
        await until(lambda: engines.last.running)
        engines.kill()
        await until(lambda: engines.starts == 2)
        await until(lambda: engine.running)
        call.cancel()
        await asyncio.wait([call])
        await until(lambda: engine.running == 0, 0.15)
        await until(lambda: len(engines.all) == 2)
    assert engines.last.started == 0


async def test_closing_the_server_ends_waiting_requests_and_the_restart(serve: Serve) -> None:
    engines = Engines(start_s=60)
    async with supervised(engines) as engine, serve(engine) as client:
        engines.kill()
        call = asyncio.create_task(client.post("/v1/rewards", json=PAIR))
        await until(lambda: engine.running)
        await engine.close()
        assert (await call).status_code == 503
    assert len(asyncio.all_tasks()) == 1


async def test_a_dead_meta_rm_fails_requests_by_their_policy_until_it_is_back(serve: Serve) -> None:
    raters: list[FakeMetaRM] = []
    back = asyncio.Event()

    async def start() -> RatingEngine:
        if raters:
            await back.wait()
        raters.append(FakeMetaRM())
        return raters[-1]

    supervisor = Supervisor("meta_rm", start, SETTLED, Metrics())
    await supervisor.begin()
    meta_rm = SupervisedMetaRM(supervisor)
    async with serve(FakeEngine(), "judge.aggregate=meta_hinge", meta_rm=meta_rm) as client:
        raters[0].dead = MetaRMFailed("the meta RM is gone")
        failed = await client.post("/v1/rewards", json=PAIR)
        assert (failed.status_code, failed.json()["error"]["code"]) == (503, "meta_rm_failed")
        await until(lambda: supervisor.down)
        assert (await status(client))[0] == 503
        assert (await post(client, meta_rm_failure="vote"))["meta_rm"] == "failed"
        back.set()
        await until(lambda: supervisor.down is None)
        assert (await post(client))["k_valid"] == 16
        assert await status(client) == (200, "")


async def test_a_meta_rm_that_hangs_is_replaced(serve: Serve) -> None:
    raters: list[FakeMetaRM] = []

    async def start() -> RatingEngine:
        raters.append(FakeMetaRM(delay_s=0.0 if raters else 60.0))
        return raters[-1]

    progress: Callable[[RatingEngine], tuple[bool, int]] = lambda one: (one.running > 0, one.rated)  # noqa: E731
    supervisor = Supervisor("meta_rm", start, SETTLED, Metrics(), progress=progress, stall_s=0.2)
    await supervisor.begin()
    meta_rm = SupervisedMetaRM(supervisor)
    async with serve(FakeEngine(), "judge.aggregate=meta_hinge", meta_rm=meta_rm) as client:
        await asyncio.sleep(0.4)
        assert len(raters) == 1, "an idle meta RM is not hung"
        call = asyncio.create_task(client.post("/v1/rewards", json=PAIR))
        failed = await call
        assert (failed.status_code, failed.json()["error"]["code"]) == (503, "meta_rm_failed")
        await until(lambda: len(raters) == 2 and supervisor.down is None)
        assert (await post(client))["meta_rm"] == "guided"
