"""Identical requests share one judgement, over HTTP with a fake engine."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from grm_server.engine.fake import FakeEngine
from grm_server.errors import EngineDead, GenerationFailed, MetaRMFailed
from grm_server.meta_rm.fake import FakeMetaRM
from tests.integration.conftest import AppClient, Serve
from tests.integration.counting import counters
from tests.integration.judging import PAIR, post, stalls_after
from tests.integration.keys import A, B, bearer

CACHE = "cache.max_mib=1"


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not met():
            await asyncio.sleep(0.002)


def callers(client: AppClient) -> int:
    """Requests that wait for a judgement, their own or another's."""
    return client.service.coalescer.waiting


async def answered_together(client: AppClient, gate: asyncio.Event, *changes: dict[str, Any]) -> list[dict[str, Any]]:
    """The answers to several requests, none of which is answered before all have come."""
    asked = [asyncio.ensure_future(post(client, **each)) for each in changes]
    await until(lambda: callers(client) == len(asked))
    gate.set()
    return [await each for each in asked]


async def test_identical_requests_in_flight_share_one_judgement(serve: Serve) -> None:
    async with serve(FakeEngine(gate=(gate := asyncio.Event()))) as client:
        answers = await answered_together(client, gate, {}, {"return_samples": True}, {"stop": {"rule": "fixed"}})
        counted = await counters(client)
        again = await post(client)
        stored = (await client.get(f"/v1/judgements/{answers[0]['id']}")).json()["answer"]
    # `return_samples` changes the answer and not the judgement, and a default equals its explicit value.
    assert sorted(str(answer.pop("shared")) for answer in answers) == ["None", "in_flight", "in_flight"]
    plain, with_samples, explicit = answers
    assert plain == explicit == with_samples | {"samples": None}
    assert stored == with_samples | {"shared": None}
    assert len(with_samples["samples"]) == 16
    assert counted['grm_shared_requests_total{kind="in_flight"}'] == 2
    assert counted['grm_requests_total{code="ok"}'] == 1
    assert counted['grm_samples_total{outcome="valid"}'] == 16
    # A finished judgement is not shared without a cache.
    assert (again["shared"], again["rewards"]) == (None, plain["rewards"])
    assert again["id"] != plain["id"]


async def test_api_keys_do_not_share_judgements(serve: Serve) -> None:
    async with serve(engine := FakeEngine(), CACHE, f'auth.keys={{"a": "{A}", "b": "{B}"}}') as client:
        answers = [
            (await client.post("/v1/rewards", json=PAIR | {"principles_from": "query"}, headers=bearer(key))).json()
            for key in (A, B, A)
        ]
    assert [answer["shared"] for answer in answers] == [None, None, "cache"]
    assert [answer["principles_from"] for answer in answers] == ["query"] * 3
    assert engine.started == 2 * (16 + 1)


async def test_a_seed_counts_only_if_the_request_has_one(serve: Serve) -> None:
    async with serve(FakeEngine(gate=(gate := asyncio.Event()))) as client:
        one, other, free, free_too = await answered_together(
            client, gate, {"seed": 1}, {"seed": 2}, {"seed": None}, {"seed": None}
        )
    assert (one["shared"], other["shared"]) == (None, None)
    assert {free["shared"], free_too["shared"]} == {None, "in_flight"}
    assert free["seed"] == free_too["seed"]


@pytest.mark.parametrize(
    "change",
    [
        {"query": "Why not?"},
        {"responses": ["B.", "A."]},
        {"k": 15},
        {"task": "math"},
        {"principles": "Be kind."},
        {"hint": 0},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_different_requests_are_judged_separately(serve: Serve, change: dict[str, Any]) -> None:
    async with serve(engine := FakeEngine(gate=(gate := asyncio.Event())), CACHE) as client:
        one, other = await answered_together(client, gate, {}, change)
        assert (one["shared"], other["shared"]) == (None, None)
    assert engine.started == one["k"] + other["k"]


@pytest.mark.parametrize("change", [{"deadline_s": 599.0}, {"priority": "high"}], ids=str)
async def test_requests_with_different_timing_are_not_shared_in_flight(serve: Serve, change: dict[str, Any]) -> None:
    async with serve(FakeEngine(gate=(gate := asyncio.Event())), CACHE) as client:
        one, other = await answered_together(client, gate, {}, change)
        assert (one["shared"], other["shared"]) == (None, None)
        # The cached judgement answers both.
        assert [(await post(client, **each))["shared"] for each in ({}, change)] == ["cache", "cache"]


async def test_an_error_is_shared_too(serve: Serve) -> None:
    async with serve(engine := FakeEngine(gate=(gate := asyncio.Event())), CACHE) as client:
        asked = [asyncio.ensure_future(client.post("/v1/rewards", json=PAIR)) for _ in range(3)]
        await until(lambda: callers(client) == 3)
        engine.dead = EngineDead("gone")
        gate.set()
        assert [(await each).json()["error"]["code"] for each in asked] == ["engine_dead"] * 3
        assert (await counters(client))['grm_requests_total{code="engine_dead"}'] == 1
        engine.dead = None
        # It is not cached.
        assert (await post(client))["shared"] is None


async def test_disconnects_do_not_affect_the_others_until_the_last_one_aborts(serve: Serve) -> None:
    async with serve(engine := FakeEngine(gate=(gate := asyncio.Event()))) as client:
        asked = [asyncio.ensure_future(post(client)) for _ in range(3)]
        await until(lambda: callers(client) == 3)
        asked[0].cancel()
        await until(lambda: callers(client) == 2)
        gate.set()
        assert len({(await each)["id"] for each in asked[1:]}) == 1
        assert len(client.service.coalescer) == 0

        gate.clear()
        asked = [asyncio.ensure_future(post(client, seed=6)) for _ in range(2)]
        await until(lambda: callers(client) == 2 and engine.running == 16)
        for each in asked:
            each.cancel()
        await asyncio.wait(asked)
        await until(lambda: len(client.service.coalescer) == 0)
        counted = await counters(client)
    assert counted['grm_samples_total{outcome="aborted"}'] == 16
    assert counted["grm_requests_in_flight"] == 0


async def test_late_in_its_deadline_a_judgement_is_not_joined(serve: Serve) -> None:
    async with serve(FakeEngine(["5, 6}"] * 16, delay_s=stalls_after(6))) as client:
        first = asyncio.ensure_future(post(client, deadline_s=1.0))
        await asyncio.sleep(0.7)
        second = asyncio.ensure_future(client.post("/v1/rewards", json=PAIR | {"deadline_s": 1.0}))
        assert (await first)["stop_reason"] == "deadline"
        # It had its own deadline of 1 s, in which this engine wrote nothing.
        assert (await second).json()["error"]["code"] == "deadline_exceeded"


async def test_a_stream_is_not_shared(serve: Serve) -> None:
    async with serve(engine := FakeEngine(), CACHE) as client:
        await post(client)
        answer = await client.post("/v1/rewards", json=PAIR, headers={"accept": "text/event-stream"})
        assert '"shared":null' in answer.text
    assert engine.started == 32


async def test_without_a_cache_nothing_is_shared_later(serve: Serve) -> None:
    async with serve(engine := FakeEngine()) as client:
        assert [(await post(client))["shared"] for _ in range(2)] == [None, None]
    assert engine.started == 32


async def test_a_cached_judgement_answers_an_identical_request(serve: Serve) -> None:
    async with serve(engine := FakeEngine(), CACHE, "judgements.ttl_s=0.2") as client:
        first = await post(client)
        await asyncio.sleep(0.3)
        # Another deadline has the same answer.
        second = await post(client, deadline_s=60, return_samples=True)
        # The stored judgement had expired, and was stored again for a whole TTL.
        stored = await client.get(f"/v1/judgements/{second['id']}")
        counted = await counters(client)
    assert second["shared"] == "cache"
    assert second | {"shared": None, "samples": None} == first
    assert stored.json()["answer"]["id"] == first["id"]
    assert engine.started == 16
    assert counted['grm_shared_requests_total{kind="cache"}'] == 1


async def test_cached_judgements_expire(serve: Serve) -> None:
    async with serve(engine := FakeEngine(), CACHE, "cache.ttl_s=0.1") as client:
        await post(client)
        await asyncio.sleep(0.2)
        assert (await post(client))["shared"] is None
    assert engine.started == 32


async def test_judgements_cut_by_a_deadline_are_not_cached(serve: Serve) -> None:
    async with serve(FakeEngine(["5, 6}"] * 6, delay_s=stalls_after(6)), CACHE) as client:
        assert (await post(client, deadline_s=2))["stop_reason"] == "deadline"
        response = await client.post("/v1/rewards", json=PAIR | {"deadline_s": 0.1})
    assert response.status_code == 504


async def test_judgements_that_lost_a_sample_are_not_cached(serve: Serve) -> None:
    async with serve(FakeEngine([GenerationFailed("x")]), CACHE) as client:
        assert [(await post(client))["k_valid"] for _ in range(2)] == [15, 16]


async def test_judgements_without_the_meta_rm_are_not_cached(serve: Serve) -> None:
    async with serve(FakeEngine(), CACHE, meta_rm=FakeMetaRM([MetaRMFailed("x")])) as client:
        body: dict[str, Any] = {"aggregate": "meta_hinge", "meta_rm_failure": "vote"}
        assert [(await post(client, **body))["meta_rm"] for _ in range(3)] == ["failed", "guided", "guided"]


async def test_groups_of_a_trainer_share_too(serve: Serve) -> None:
    body = {"principle": "Be kind.", "prompt": "Why?", "responses": {"a": "A.", "b": "B."}}
    async with serve(engine := FakeEngine()) as client:
        one, other = (await client.post("/api/rewardanything_batch?k=4", json=[body, body])).json()
    assert one == other
    assert engine.started == 4
