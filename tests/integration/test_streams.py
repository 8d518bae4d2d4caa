"""Server-sent events, over HTTP around a fake engine."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from grm_server.api import sse as stream_module
from grm_server.app import create_app
from grm_server.engine.fake import FakeCall, FakeEngine
from grm_server.errors import EngineDead
from grm_server.grm.script import Sample
from grm_server.settings import load_settings
from tests.integration.conftest import Serve
from tests.integration.judging import PAIR, post, stalls_after


async def events_of(client: httpx.AsyncClient, **changes: Any) -> list[tuple[str, Any]]:
    headers = {"Accept": "text/event-stream"}
    async with client.stream("POST", "/v1/rewards", json=PAIR | changes, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        text = (await response.aread()).decode()
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["event"], json.loads(fields["data"])))
    return events


async def test_a_stream_ends_with_the_plain_answer(serve: Serve, tmp_path: Path) -> None:
    async with serve(FakeEngine(), f"stopping.priors={tmp_path / 'one.json'}") as client:
        events = await events_of(client, stop={"rule": "precision", "se": 1e-9}, return_samples=True)
    async with serve(FakeEngine(), f"stopping.priors={tmp_path / 'other.json'}") as client:
        plain = await post(client, stop={"rule": "precision", "se": 1e-9}, return_samples=True)
    names = [name for name, _ in events]
    assert Counter(names) == {"started": 1, "sample": 16, "wave": 3, "rewards": 1}
    assert (names[0], names[-1]) == ("started", "rewards")
    assert names.index("wave") == 5
    waves = [data for name, data in events if name == "wave"]
    assert [wave["k_used"] for wave in waves] == [4, 8, 16]
    assert all(len(wave["rewards"]) == len(wave["se"]) == len(wave["p_best"]) == 2 for wave in waves)
    last = events[-1][1]
    changing = ("id", "timing", "samples")
    assert {k: v for k, v in last.items() if k not in changing} == {k: v for k, v in plain.items() if k not in changing}
    samples = [data for name, data in events if name == "sample"]
    assert {sample["index"]: sample["scores"] for sample in samples} == {
        sample["index"]: sample["scores"] for sample in plain["samples"]
    }
    assert waves[-1]["rewards"] == last["rewards"]
    assert events[0][1] == {"id": last["id"], "model": "fake", "k": 16, "seed": 5, "list_size": 2}


async def test_a_line_separator_in_a_critique_does_not_split_an_event(serve: Serve) -> None:
    critique = "one\u2028two\u2029three\x85four"
    samples = [Sample({"principles": "", "critique": critique, "verdict": "5, 6}"}, finished_s=1.0)] * 4
    async with serve(FakeEngine(samples)) as client:
        events = await events_of(client, k=4, return_samples=True)
    assert [data["critique"] for name, data in events if name == "sample"] == [critique] * 4


async def test_refusals_come_before_the_stream(serve: Serve) -> None:
    async with serve(FakeEngine(max_model_len=300)) as client:
        for change in ({"k": 0}, {"k": 10**6}, {"responses": ["word " * 600, "B."]}):
            response = await client.post("/v1/rewards", json=PAIR | change, headers={"Accept": "text/event-stream"})
            assert response.status_code in (400, 422)
            assert "error" in response.json()


async def test_an_unexpected_error_is_an_event_without_its_message(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: FakeCall) -> str:
        raise RuntimeError("the prompt was SECRET")

    async with serve(FakeEngine(score=broken)) as client:
        events = await events_of(client)
    assert [name for name, _ in events] == ["started", "error"]
    assert events[-1][1]["error"]["code"] == "internal_error"
    assert "SECRET" not in json.dumps(events) + caplog.text


@asynccontextmanager
async def stalled(app: FastAPI, body: dict[str, Any]) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """A client that stops reading at the first sample. Yields a function that disconnects it."""
    hung_up, blocked = asyncio.Event(), asyncio.Event()
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if b"event: sample" in message.get("body", b""):
            blocked.set()
            await asyncio.sleep(60)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/rewards",
        "headers": [(b"content-type", b"application/json"), (b"accept", b"text/event-stream")],
        "query_string": b"",
    }
    call = asyncio.ensure_future(app(scope, receive, send))

    async def hang_up() -> None:
        hung_up.set()
        await asyncio.wait_for(call, 2)

    await asyncio.wait_for(blocked.wait(), 2)
    yield hang_up


async def test_a_disconnect_while_a_write_is_blocked(tmp_path: Path) -> None:
    engine = FakeEngine(["5, 6}"] * 16, delay_s=stalls_after(3))
    app = create_app(load_settings({}, [f"cache_dir={tmp_path}", "stopping.rule=fixed"]), engine)
    async with app.router.lifespan_context(app), stalled(app, PAIR) as hang_up:
        assert engine.running == 16 - 3
        await hang_up()
        assert engine.running == 0


async def test_a_stalled_reader_does_not_delay_others(tmp_path: Path) -> None:
    engine = FakeEngine(delay_s=0.01)
    settings = [f"cache_dir={tmp_path}", "stopping.rule=fixed", "admission.max_running_samples=16"]
    app = create_app(load_settings({}, settings), engine)
    async with app.router.lifespan_context(app), stalled(app, PAIR) as hang_up:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            # The stalled request fills the engine; its samples finish and make room for others.
            await post(client, k=16, seed=6)
            metrics = (await client.get("/metrics")).text
        assert engine.finished == 32
        assert "grm_running_samples 0.0" in metrics
        assert "grm_requests_in_flight 0.0" in metrics
        await hang_up()


async def test_an_error_in_the_middle_of_a_stream_is_its_last_event(serve: Serve) -> None:
    def dies(_: FakeCall) -> None:
        engine.dead = EngineDead("died")

    async with serve(engine := FakeEngine(score=dies)) as client:
        events = await events_of(client)
        metrics = (await client.get("/metrics")).text
    assert [name for name, _ in events] == ["started", "error"]
    assert events[-1][1]["error"]["code"] == "engine_dead"
    assert 'grm_requests_total{code="engine_dead"} 1.0' in metrics
    assert "grm_requests_in_flight 0.0" in metrics


async def test_a_silent_stream_has_heartbeats(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "HEARTBEAT_S", 0.01)
    async with serve(FakeEngine(delay_s=0.1)) as client:
        response = await client.post("/v1/rewards", json=PAIR, headers={"Accept": "text/event-stream"})
    assert response.text.count(": ping\n\n") >= 3
    assert "event: rewards" in response.text
