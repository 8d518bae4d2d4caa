"""Draining, inside one app."""

import asyncio
import json
from typing import Any

from grm_server.api.service import Service
from grm_server.engine.fake import FakeEngine
from tests.integration.conftest import Serve
from tests.integration.judging import PAIR
from tests.integration.trainers import slime

STREAM = {"Accept": "text/event-stream"}


async def under_way(service: Service, count: int) -> None:
    async with asyncio.timeout(10):
        while service.drain.in_flight < count:
            await asyncio.sleep(0.01)


async def test_draining_refuses_new_requests_and_is_not_ready(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        assert (await client.get("/health/ready")).status_code == 200
        client.service.drain.begin()
        ready = await client.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "not_ready")
        assert "shutting down" in ready.json()["reason"]
        refused = await client.post("/v1/rewards", json=PAIR)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        assert refused.json()["error"]["retryable"]
        assert refused.headers["retry-after"] == "1"
        assert refused.headers["connection"] == "close"
        for path in ("/health/live", "/metrics", "/v1/models"):
            assert (await client.get(path)).status_code == 200


async def test_in_flight_requests_finish_and_close_their_connection(serve: Serve) -> None:
    async with serve(FakeEngine(delay_s=0.3)) as client:
        service = client.service
        call = asyncio.ensure_future(client.post("/v1/rewards", json=PAIR))
        await under_way(service, 1)
        service.drain.begin()
        answer = await call
        assert answer.status_code == 200
        assert answer.headers["connection"] == "close"
        async with asyncio.timeout(1):
            await service.drain.idle()


async def test_requests_aborted_at_the_end_get_503(serve: Serve) -> None:
    engine = FakeEngine(delay_s=60)
    async with serve(engine, "grouping.idle_s=30") as client:
        service = client.service
        plain, stream, single, rerank = (
            asyncio.ensure_future(client.post(path, json=body, headers=headers))
            for path, body, headers in (
                ("/v1/rewards", PAIR, {}),
                ("/v1/rewards", PAIR, STREAM),
                ("/get_reward", {"query": ["A"], "prompts": ["Q"]}, {}),
                ("/rerank", {"query": "Q", "documents": ["A"]}, {}),
            )
        )
        await under_way(service, 4)
        async with asyncio.timeout(10):
            while engine.running < 16 + 16 + 16:
                await asyncio.sleep(0.01)
        service.drain.begin()
        service.grouper.drain()
        service.drain.expire()
        for call in (plain, single, rerank):
            answer = await call
            # A trainer gets an error instead of a neutral reward, and retries.
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "shutting_down")
            assert answer.headers["connection"] == "close"
        answer = await stream
        assert answer.status_code == 200
        name, data = answer.text.strip().split("\n\n")[-1].split("\n")
        assert name == "event: error"
        assert json.loads(data.removeprefix("data: "))["error"]["code"] == "shutting_down"
        await service.drain.idle()
        # The group of the single response is still judged, for a retry, until the server closes.
        async with asyncio.timeout(10):
            while engine.running > 16:
                await asyncio.sleep(0.01)
    assert engine.running == 0


async def test_draining_closes_open_groups(serve: Serve) -> None:
    async with serve(FakeEngine(), "grouping.idle_s=30", "judge.k=2") as client:
        service = client.service
        calls = [asyncio.ensure_future(client.post("/reward?n=8", json=slime("Q", f"A{i}"))) for i in range(3)]
        await under_way(service, 3)
        await asyncio.sleep(0.2)
        service.drain.begin()
        service.grouper.drain()
        async with asyncio.timeout(10):
            assert [(await call).status_code for call in calls] == [200, 200, 200]
        text = (await client.get("/metrics")).text
    assert 'grm_group_size_count{reason="drain"} 1.0' in text


async def test_a_response_that_arrives_while_draining_does_not_wait_for_a_group(serve: Serve) -> None:
    async with serve(FakeEngine(), "grouping.idle_s=30", "judge.k=2") as client:
        service = client.service
        sent = asyncio.Event()

        async def body() -> Any:
            yield b" "
            await sent.wait()
            yield json.dumps(slime("Q", "A")).encode()

        call = asyncio.ensure_future(
            client.post("/reward?n=8", content=body(), headers={"Content-Type": "application/json"})
        )
        await under_way(service, 1)
        service.drain.begin()
        service.grouper.drain()
        sent.set()
        async with asyncio.timeout(10):
            assert (await call).status_code == 200
