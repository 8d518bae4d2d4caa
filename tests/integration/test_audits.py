"""Audits of early stops, over HTTP with a fake engine."""

import asyncio
import re
from collections import Counter

import httpx
import pytest

from grm_server.engine.fake import FakeCall, FakeEngine
from grm_server.engine.protocol import Outcome, SchedulingClass
from tests.integration.conftest import Serve
from tests.integration.judging import LONG, favours, post, scores, stalls_after, stalls_audits


async def audits(client: httpx.AsyncClient) -> str:
    for _ in range(200):
        text = (await client.get("/metrics")).text
        if "grm_audits_total{" in text:
            return text
        await asyncio.sleep(0.01)
    raise AssertionError("no audit ended")


async def test_an_audit_draws_the_remaining_samples_after_the_answer(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="grm_server")
    engine = FakeEngine(score=favours("B."), delay_s=0.005)
    async with serve(engine, "stopping.audit_share=1") as client:
        answer = await post(client, stop={"rule": "decided"})
        assert (answer["stop_reason"], answer["k_used"]) == ("decided", 4)
        text = await audits(client)
    assert 'grm_audits_total{outcome="agree"} 1.0' in text
    assert engine.finished == 16
    assert Counter(engine.schedulings)[SchedulingClass.AUDIT] == 12
    assert "audit: decided at k=4" in caplog.text
    assert "the best response is the same" in caplog.text


async def test_an_audit_that_disagrees_is_counted(serve: Serve) -> None:
    def turncoat(call: FakeCall) -> Outcome | str | None:
        """Clearly for B in four samples, and clearly for A from then on."""
        return favours("B." if call.index < 4 else "A.")(call)

    async with serve(FakeEngine(score=turncoat), "stopping.audit_share=1") as client:
        assert (await post(client, stop={"rule": "decided"}))["best"] == 1
        assert 'grm_audits_total{outcome="disagree"} 1.0' in await audits(client)


async def test_an_audit_of_a_request_that_dropped_responses_draws_whole_lists(serve: Serve) -> None:
    def two_close(call: FakeCall) -> str:
        """Two responses are close, six are far behind."""
        return scores(8 + call.seed % 2 if "0." in t else 9 - call.seed % 2 if "1." in t else 2 for t in call.shown)

    engine = FakeEngine(score=two_close)
    async with serve(engine, "stopping.audit_share=1") as client:
        answer = await post(client, responses=LONG[:8], k=24, stop={"rule": "decided", "gamma": 0.02})
        await audits(client)
    lists = Counter(script.prompt.count("[The Begin of Response ") for script, seeds, _ in engine.calls for _ in seeds)
    assert lists[2] > 0
    # 24 whole lists in total, whether the request stopped early or not.
    assert lists[8] == 24
    assert answer["votes"][0] > answer["votes"][7]
    assert set(lists) == {2, 8}


async def test_an_audit_of_a_ranking_compares_rankings(serve: Serve) -> None:
    def turncoat(call: FakeCall) -> str:
        """The best stays the best; the other two change places after the first wave."""
        b, c = (5, 2) if call.index < 6 else (2, 5)
        return scores(9 if "A." in text else b if "B." in text else c for text in call.shown)

    async with serve(FakeEngine(score=turncoat), "stopping.audit_share=1") as client:
        stop = {"rule": "decided", "target": "ranking", "gamma": 0.2}
        answer = await post(client, responses=["A.", "B.", "C."], stop=stop, k=24)
        assert answer["ranking"] == [0, 1, 2]
        assert 'grm_audits_total{outcome="disagree"} 1.0' in await audits(client)


async def test_audits_end_with_the_server(serve: Serve) -> None:
    engine = FakeEngine(["9, 3}", "3, 9}"] * 2, delay_s=stalls_after(4))
    async with serve(engine, "stopping.audit_share=1") as client:
        # Scores by position, which the balanced orders cancel out.
        await post(client, stop={"rule": "decided", "gamma": 0.99})
        await asyncio.sleep(0.02)
        assert engine.running == 12
    assert engine.running == 0


async def test_concurrent_audits_are_limited(serve: Serve) -> None:
    engine = FakeEngine(score=favours("B."), delay_s=stalls_audits)
    async with serve(engine, "stopping.audit_share=1") as client:
        for seed in range(6):
            await post(client, stop={"rule": "decided"}, seed=seed)
        text = (await client.get("/metrics")).text
    assert 'grm_audits_total{outcome="skipped"} 2.0' in text


async def test_a_share_of_requests_is_audited(serve: Serve) -> None:
    async with serve(FakeEngine(score=favours("B.")), "stopping.audit_share=0.3") as client:
        for number in range(60):
            await post(client, query=f"Why {number}?", stop={"rule": "decided"}, k=8)
            await asyncio.sleep(0.002)
        await audits(client)
        counts = re.findall(
            r'grm_audits_total\{outcome="(?:agree|skipped)"\} (\S+)', (await client.get("/metrics")).text
        )
    # 18 expected. The hash key is random, and so is the number.
    assert 4 <= sum(map(float, counts)) <= 36


async def test_an_audit_outlives_the_deadline_of_its_request(serve: Serve) -> None:
    def slow_audits(call: FakeCall) -> float:
        return 1.3 if call.scheduling is SchedulingClass.AUDIT else 0.0

    async with serve(FakeEngine(score=favours("B."), delay_s=slow_audits), "stopping.audit_share=1") as client:
        await post(client, stop={"rule": "decided"}, deadline_s=1)
        assert 'grm_audits_total{outcome="agree"} 1.0' in await audits(client)
