"""Deadlines, over HTTP with a fake engine."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from grm_server.engine.fake import FakeEngine
from tests.integration.conftest import Serve
from tests.integration.judging import LONG, PAIR, post, stalls_after


async def test_a_deadline_in_the_second_wave_returns_the_votes_so_far(serve: Serve) -> None:
    engine = FakeEngine(["5, 6}"] * 16, delay_s=stalls_after(6))
    async with serve(engine) as client:
        # Long enough for the fast samples even if the machine stalls for a moment.
        answer = await post(client, stop={"rule": "decided"}, deadline_s=2, return_samples=True)
    assert (answer["stop_reason"], answer["k_used"], answer["k_valid"]) == ("deadline", 6, 6)
    assert len(answer["samples"]) == 6
    assert 0 < answer["risk_full_k"] <= 1
    assert answer["timing"]["total_s"] < 4
    # Nothing keeps running.
    assert engine.running == 0
    assert (engine.started, engine.aborted) == (8, 2)


async def test_a_deadline_with_too_few_votes_is_an_error_with_counts(serve: Serve) -> None:
    engine = FakeEngine(["no", "5, 6}", "5, 6}"], delay_s=stalls_after(3))
    async with serve(engine) as client:
        response = await client.post("/v1/rewards", json=PAIR | {"deadline_s": 1, "min_votes": 3})
        metrics = (await client.get("/metrics")).text
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["retryable"]) == (504, "deadline_exceeded", True)
    assert error["details"] == {"finished": 3, "begun": 16, "no_scores": 1}
    assert engine.running == 0
    assert 'grm_samples_total{outcome="aborted"} 13.0' in metrics
    assert 'grm_requests_total{code="deadline_exceeded"} 1.0' in metrics


async def test_a_deadline_counts_from_arrival(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine(["5, 6}"] * 4, delay_s=stalls_after(4))
    prepare = engine.prepare

    def slowly(script: Any) -> Any:
        time.sleep(1)
        return prepare(script)

    monkeypatch.setattr(engine, "prepare", slowly)
    async with serve(engine) as client:
        answer = await post(client, deadline_s=3.5)
    assert answer["stop_reason"] == "deadline"
    # Tokenising two prompts took 2 s of it.
    assert answer["timing"]["total_s"] < 5.4


async def test_a_deadline_before_the_first_sample(serve: Serve) -> None:
    async with serve(FakeEngine(delay_s=60)) as client:
        response = await client.post("/v1/rewards", json=PAIR | {"deadline_s": 0.05})
    assert (response.status_code, response.json()["error"]["details"]["finished"]) == (504, 0)


async def test_a_deadline_may_cut_a_round_of_blocks(serve: Serve) -> None:
    # k = 6 with 20 responses needs 18 samples; the first wave has k = 4.
    async with serve(FakeEngine(delay_s=stalls_after(14))) as client:
        answer = await post(client, responses=LONG, k=6, stop={"rule": "precision", "se": 1e-9}, deadline_s=2)
    assert (answer["stop_reason"], answer["k_used"], answer["usage"]["samples"]) == ("deadline", 4, 14)
    assert set(answer["votes"]) == {4, 5}


async def test_nothing_is_learned_from_a_first_wave_that_was_cut(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "learnt.json"
    async with serve(FakeEngine(delay_s=stalls_after(3)), f"stopping.priors={path}") as client:
        await post(client, stop={"rule": "decided"}, deadline_s=1)
    assert json.loads(path.read_text())["priors"] == []


async def test_a_deadline_during_tokenising(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, prepared = FakeEngine(), 0
    prepare = engine.prepare

    def slowly(script: Any) -> Any:
        nonlocal prepared
        prepared += 1
        time.sleep(0.05)
        return prepare(script)

    monkeypatch.setattr(engine, "prepare", slowly)
    async with serve(engine) as client:
        # Eight responses have eight orders.
        body = PAIR | {"responses": [f"{i}." for i in range(8)], "stop": {"rule": "fixed"}, "deadline_s": 0.2}
        response = await client.post("/v1/rewards", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert response.json()["error"]["details"] == {"finished": 0, "begun": 0}
    assert prepared < 8
    assert engine.started == 0
