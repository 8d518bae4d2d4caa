"""Engines that do not start again, around fakes that fail on command."""

import asyncio

import pytest

from grm_server.supervision import supervisor as supervision
from grm_server.supervision.restart_policy import RestartPolicy
from grm_server.telemetry.metrics import Metrics
from tests.integration.conftest import Serve
from tests.integration.engines import Engines, status, supervised, until
from tests.integration.judging import PAIR, post


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "LOOK_S", 0.01)


async def test_a_crash_loop_backs_off_refuses_and_stays_red_with_the_reason(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "PATIENCE_S", 0.5)
    engines, metrics = Engines(), Metrics()
    engines.fails = [None, *[RuntimeError("no memory left")] * 10]
    async with supervised(engines, RestartPolicy(3, 10), metrics=metrics) as engine, serve(engine) as client:
        asked = asyncio.create_task(client.post("/v1/rewards", json=PAIR))
        await until(lambda: engines.last.running)
        engines.kill()
        await until(lambda: engines.starts == 2)
        await asyncio.sleep(0.2)  # in the pause of 1 s
        refused = await client.post("/v1/rewards", json=PAIR)
        assert engines.starts == 2, "it did not wait for the next"
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "30")
        assert not asked.done()
        waited = await asked
        code, reason = await status(client)
        later = await client.post("/v1/rewards", json=PAIR)
    assert [one.json()["error"]["code"] for one in (waited, refused, later)] == ["engine_dead"] * 3
    assert waited.status_code == code == 503
    assert "no memory left" in reason
    assert "restart the server" in reason
    assert engines.starts == 4
    text = metrics.exposition().decode()
    assert 'outcome="failed"} 3.0' in text
    assert 'outcome="given_up"} 1.0' in text
    assert "grm_requests_in_flight 0.0" in text


async def test_a_start_that_works_in_the_end_brings_everything_back(serve: Serve) -> None:
    engines = Engines()
    engines.fails = [None, OSError("busy")]
    async with supervised(engines, RestartPolicy(3, 10)) as engine, serve(engine) as client:
        engines.kill()
        assert (await post(client))["k_valid"] == 16
        assert await status(client) == (200, "")
    assert engines.starts == 3


async def test_restarts_can_be_left_to_others(serve: Serve) -> None:
    engines = Engines()
    async with supervised(engines, RestartPolicy(0, 10)) as engine, serve(engine) as client:
        engines.kill()
        response = await client.post("/v1/rewards", json=PAIR)
        assert (response.status_code, (await status(client))[0]) == (503, 503)
    assert engines.starts == 1


async def test_a_start_that_hangs_is_given_up_and_tried_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "_LEAST_LIMIT_S", 0.2)
    engines = Engines(start_s=60)
    async with supervised(engines, RestartPolicy(3, 10)) as engine, serve(engine) as client:
        engines.kill()
        await until(lambda: engines.starts == 2)
        engines.start_s = 0
        assert (await post(client))["k_valid"] == 16
    assert engines.starts == 3
