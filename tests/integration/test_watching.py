"""Metrics and the access log of judging and HTTP, around a fake engine."""

import asyncio
import io
import json
import logging
import re
import sys
import time
from pathlib import Path

import pytest

from grm_server.app import create_app
from grm_server.engine.fake import FakeCall, FakeEngine
from grm_server.engine.protocol import Rating
from grm_server.errors import EngineDead, GenerationFailed, MetaRMFailed
from grm_server.meta_rm.fake import FakeMetaRM
from grm_server.settings import SettingsError, load_settings
from grm_server.telemetry.logging import JsonLines
from grm_server.telemetry.metrics import Metrics
from tests.integration.conftest import Serve
from tests.integration.counting import counters, series
from tests.integration.judging import PAIR, post

ROOT = Path(__file__).parents[2]
SECRET = "xylophone"


def access_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [record.__dict__["facts"] for record in caplog.records if record.name == "grm_server.api.access"]


async def test_disagreement_and_tokens_per_reward(serve: Serve) -> None:
    # Every sample prefers the first position. Orders are balanced, so half of the samples prefer each response.
    async with serve(FakeEngine(["9, 1}"] * 4)) as client:
        answer = await post(client, k=4)
        seen = await counters(client)
    assert seen["grm_disagreement_sum"] == pytest.approx(4 / 6)
    assert seen["grm_disagreement_count"] == 1
    assert seen["grm_tokens_per_reward_sum"] == answer["usage"]["completion_tokens"] / 2


async def test_the_metrics_show_a_position_effect(serve: Serve) -> None:
    async with serve(FakeEngine(["9, 1}"] * 4)) as client:
        await post(client, k=4)
        seen = await counters(client)
    assert seen['grm_position_effect_points{position="first"}'] == pytest.approx(4)
    assert seen['grm_position_effect_points{position="last"}'] == pytest.approx(-4)


async def test_a_single_response_has_no_disagreement_and_no_position_effect(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        await post(client, k=4, responses=["A."])
        seen = await counters(client)
    assert seen["grm_disagreement_count"] == 0
    assert seen["grm_tokens_per_reward_count"] == 1
    assert 'grm_position_effect_points{position="first"}' not in seen


@pytest.mark.parametrize(("of_the_majority", "auc"), [(0.2, 0.0), (0.5, 0.5), (0.8, 1.0)])
async def test_the_consensus_auc_of_the_meta_rm(serve: Serve, of_the_majority: float, auc: float) -> None:
    def judge(call: FakeCall) -> str:
        """The fourth sample contradicts the first three."""
        return "9, 1}" if ("A." in call.shown[0]) == (call.index < 3) else "1, 9}"

    class Rater(FakeMetaRM):
        def prepare(self, prompt: str) -> tuple[int, ...]:
            return (int("A." in prompt.split("[The Begin of Response ")[1]),)

        async def rate(self, prompt: tuple[int, ...], answer: str) -> Rating:
            prefers_a = bool(prompt[0]) == (answer.rindex("9") < answer.rindex("1"))
            return Rating(of_the_majority if prefers_a else 0.5)

    async with serve(FakeEngine(score=judge), meta_rm=Rater()) as client:
        answer = await post(client, k=4, aggregate="meta_hinge", return_samples=True)
        seen = await counters(client)
    prefer = sorted((sample["scores"].index(9), sample["meta_reward"]) for sample in answer["samples"])
    assert prefer == [(0, of_the_majority)] * 3 + [(1, 0.5)], "the fakes of this test are wrong"
    assert seen["grm_meta_consensus_auc_count"] == 1
    assert seen["grm_meta_consensus_auc_sum"] == auc


async def test_requests_are_counted_by_route_and_status_never_by_path(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        await post(client, k=1)
        await client.get("/v1/judgements/rw-1")
        await client.get("/v1/judgements/rw-2")
        for path in range(20):
            await client.get(f"/{SECRET}/{path}", headers={"X-Request-ID": f"{SECRET}{path}"})
        await client.request("BREW", "/v1/rewards")
        await post(client, k=1, query=SECRET, task=SECRET)
        exposed = await client.get("/metrics")
    seen = series(exposed.text)
    assert seen['grm_http_requests_total{route="/v1/rewards",status="200"}'] == 2
    assert seen['grm_http_requests_total{route="/v1/rewards",status="405"}'] == 1
    assert seen['grm_http_requests_total{route="/v1/judgements/{judgement_id}",status="404"}'] == 2
    assert seen['grm_http_requests_total{route="other",status="404"}'] == 20
    assert seen['grm_http_seconds_count{route="/v1/rewards"}'] == 3
    assert SECRET not in exposed.text


async def test_a_refused_body_is_counted(serve: Serve) -> None:
    async with serve(FakeEngine(), "http.max_body_bytes=1024") as client:
        await client.post("/v1/rewards", content=b"x" * 2000)
        seen = await counters(client)
    assert seen['grm_http_requests_total{route="other",status="413"}'] == 1


async def test_saturation_is_relative_to_max_num_seqs(serve: Serve) -> None:
    async with serve(FakeEngine(delay_s=30), "engine.max_num_seqs=8") as client:
        asking = asyncio.ensure_future(client.post("/v1/rewards", json=PAIR | {"k": 16}))
        async with asyncio.timeout(10):
            while (await counters(client))["grm_engine_saturation"] != 2:
                await asyncio.sleep(0.01)
        asking.cancel()


async def test_a_blocked_event_loop_is_measured(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        await asyncio.sleep(0.05)
        time.sleep(0.8)  # noqa: ASYNC251
        await asyncio.sleep(0.05)
        seen = await counters(client)
    late = seen["grm_event_loop_lag_seconds_count"] - seen['grm_event_loop_lag_seconds_bucket{le="0.25"}']
    assert late >= 1


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    exposed = re.findall(r"^# HELP (grm_\w+)", Metrics().exposition().decode(), re.MULTILINE)
    # prometheus_client adds a series `_created` to each counter.
    real = {name for name in exposed if not name.endswith("_created")}
    rows = re.findall(r"^\| (`grm_[^|]+)", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`(grm_\w+)", row)]
    assert sorted(documented) == sorted(real)


async def test_a_request_keeps_its_id_and_gets_one_otherwise(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        kept = await client.get("/health/live", headers={"X-Request-ID": "Root=1-abc.DEF:2"})
        made = await client.get("/health/live")
        refused = await client.get("/nothing", headers={"X-Request-ID": "a b"})
        long = await client.get("/nothing", headers={"X-Request-ID": "a" * 129})
    assert kept.headers["X-Request-ID"] == "Root=1-abc.DEF:2"
    ids = {response.headers["X-Request-ID"] for response in (made, refused, long)}
    assert len(ids) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in ids)


async def test_the_access_line_has_the_result(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serve(FakeEngine(), "log_requests=all") as client:
        answer = await post(client, k=4, query=SECRET, responses=[SECRET, "B."], task=SECRET)
        await client.get("/health/ready")
    line = access_lines(caplog)[0]
    assert isinstance(line.pop("ms"), float)
    assert line == {
        "method": "POST",
        "route": "/v1/rewards",
        "status": 200,
        "judgement": answer["id"],
        "n": 2,
        "k_used": 4,
        "samples": 4,
        "stop": "full_k",
    }
    assert len(access_lines(caplog)) == 1, "probes are not logged"
    assert SECRET not in caplog.text


async def test_log_lines_have_the_request_id(serve: Serve) -> None:
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("grm_server")
    logger.addHandler(handler)
    try:
        async with serve(FakeEngine(), "meta_rm.failure=vote", meta_rm=FakeMetaRM([MetaRMFailed("gone")])) as client:
            await client.post("/v1/rewards", json=PAIR | {"aggregate": "meta_hinge"}, headers={"X-Request-ID": "me"})
    finally:
        logger.removeHandler(handler)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    named = [(line["request_id"], line["tenant"]) for line in lines if "meta RM failed" in line["message"]]
    assert named == [("me", "anonymous")]


@pytest.mark.parametrize(("mode", "expected"), [("none", []), ("failed", [503]), ("all", [422, 503])])
async def test_which_requests_are_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture, mode: str, expected: list[int]
) -> None:
    caplog.set_level("INFO")
    engine = FakeEngine()
    async with serve(engine, f"log_requests={mode}") as client:
        await client.post("/v1/rewards", json={})
        engine.dead = EngineDead("gone")
        await client.post("/v1/rewards", json=PAIR)
    assert [line["status"] for line in access_lines(caplog)] == expected


async def test_an_error_in_a_stream_is_logged_with_status_200(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async with serve(FakeEngine([GenerationFailed("x")] * 2)) as client:
        await client.post("/v1/rewards", json=PAIR | {"k": 2}, headers={"Accept": "text/event-stream"})
    assert [(line["status"], line["error"]) for line in access_lines(caplog)] == [(200, "too_few_votes")]


async def test_a_grouped_reward_names_its_judgement(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serve(FakeEngine(), "log_requests=all") as client:
        ask = [client.post("/reward?n=2&k=2", json={"prompt": "Q", "response": text}) for text in ("A", "B")]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in ask]
    assert [task.result().status_code for task in tasks] == [200, 200]
    one, two = access_lines(caplog)
    assert str(one["judgement"]).startswith("rw-")
    assert one["judgement"] == two["judgement"]
    assert (one["n"], two["n"]) == (2, 2)


async def test_requests_that_share_a_judgement_name_it(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with serve(FakeEngine(delay_s=0.2), "log_requests=all") as client, asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(client.post("/v1/rewards", json=PAIR | {"k": 2}))
    one, two = access_lines(caplog)
    assert one["judgement"] == two["judgement"]


def test_tracing_without_its_packages_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grm_server.telemetry.tracing", None)
    with pytest.raises(SettingsError, match=r"pip install \./clients '\.\[tracing\]'"):
        create_app(load_settings({}, ["tracing=true"]))
