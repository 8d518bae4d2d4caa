"""Engines whose restart fails, with fakes that fail on command."""

import asyncio

import pytest

from grm_server.supervision import supervisor
from grm_server.supervision.restart_policy import RestartPolicy
from grm_server.telemetry.metrics import Metrics
from tests.integration.conftest import Serve
from tests.integration.engines import Engines, status, supervised, until
from tests.integration.judging import PAIR, post


@pytest.fixture(autouse=True)
def fast_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "POLL_S", 0.01)


async def test_a_crash_loop_backs_off_refuses_requests_and_reports_the_cause(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "PATIENCE_S", 0.5)
    engines, metrics = Engines(), Metrics()
    engines.fails = [None, *[RuntimeError("no memory left")] * 10]
    async with supervised(engines, RestartPolicy(3, 10), metrics=metrics) as engine, serve(engine) as client:
        in_flight = asyncio.create_task(client.post("/v1/rewards", json=PAIR))
        await until(lambda: engines.last.running)
        engines.kill()
        await until(lambda: engines.starts == 2)
        await asyncio.sleep(0.2)  # within the pause of 1 s
        refused = await client.post("/v1/rewards", json=PAIR)
        assert engines.starts == 2, "the refused request did not wait for the next start"
        assert (refused.status_code, refused.headers["Retry-After"]) == (503, "30")
        assert not in_flight.done()
        waited = await in_flight
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


async def test_a_restart_that_succeeds_at_last_restores_the_service(serve: Serve) -> None:
    engines = Engines()
    engines.fails = [None, OSError("busy")]
    async with supervised(engines, RestartPolicy(3, 10)) as engine, serve(engine) as client:
        engines.kill()
        assert (await post(client))["k_valid"] == 16
        assert await status(client) == (200, "")
    assert engines.starts == 3


async def test_restarts_can_be_disabled(serve: Serve) -> None:
    engines = Engines()
    async with supervised(engines, RestartPolicy(0, 10)) as engine, serve(engine) as client:
        engines.kill()
        response = await client.post("/v1/rewards", json=PAIR)
        assert (response.status_code, (await status(client))[0]) == (503, 503)
    assert engines.starts == 1


async def test_a_start_that_hangs_times_out_and_is_retried(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_MIN_START_TIMEOUT_S", 0.2)
    engines = Engines(start_s=60)
    async with supervised(engines, RestartPolicy(3, 10)) as engine, serve(engine) as client:
        engines.kill()
        await until(lambda: engines.starts == 2)
        engines.start_s = 0
        assert (await post(client))["k_valid"] == 16
    assert engines.starts == 3
