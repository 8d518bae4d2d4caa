"""The vote when the meta RM fails, times out, or the client disconnects, over HTTP with fake engines."""

import asyncio

import pytest

from grm_server.engine.fake import FakeEngine
from grm_server.errors import MetaRMFailed
from grm_server.meta_rm.fake import FakeMetaRM
from tests.integration.conftest import Serve
from tests.integration.guided import PAIR, post

FAILED = MetaRMFailed("gone")


async def test_a_failure_is_an_error(serve: Serve) -> None:
    engine = FakeEngine(delay_s=0.01)
    async with serve(engine, meta_rm=FakeMetaRM([0.5, FAILED])) as client:
        response = await client.post("/v1/rewards", json=PAIR | {"aggregate": "meta_hinge"})
        metrics = (await client.get("/metrics")).text
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert response.json()["error"]["code"] == "meta_rm_failed"
    assert engine.running == 0
    assert 'grm_meta_ratings_total{outcome="failed"} 1.0' in metrics
    assert 'grm_requests_total{code="meta_rm_failed"} 1.0' in metrics


@pytest.mark.parametrize("aggregate", ["meta_hinge", "meta_top"])
@pytest.mark.parametrize("ratings", [[FAILED], [0.9, 0.1, FAILED], [0.9, 0.9, 0.1, FAILED]])
async def test_the_fallback_is_the_plain_vote_of_all_samples_and_is_marked(
    serve: Serve, aggregate: str, ratings: list[float | MetaRMFailed]
) -> None:
    async with serve(FakeEngine(), meta_rm=FakeMetaRM(ratings)) as client:
        answer = await post(client, aggregate=aggregate, meta_rm_failure="vote")
        plain = await post(client)
        metrics = (await client.get("/metrics")).text
    assert (answer["meta_rm"], answer["aggregate"]) == ("failed", "mean")
    assert answer["rewards"] == plain["rewards"]
    assert answer["vote_sums"] == plain["vote_sums"]
    assert all(sample["kept"] for sample in answer["samples"])
    assert "grm_requests_unguided_total 1.0" in metrics


async def test_with_a_dead_meta_rm_no_samples_are_drawn(serve: Serve) -> None:
    engine, meta_rm = FakeEngine(), FakeMetaRM()
    meta_rm.dead = FAILED
    async with serve(engine, "meta_rm.failure=vote", meta_rm=meta_rm) as client:
        await post(client, 503, aggregate="meta_hinge", meta_rm_failure="error")
        assert engine.started == 0
        answer = await post(client, aggregate="meta_hinge")
    assert answer["meta_rm"] == "failed"
    assert meta_rm.answers == []


async def test_a_failure_in_a_later_wave(serve: Serve) -> None:
    """The samples so far stay, and the stop rule continues with the plain vote."""
    engine = FakeEngine(["5, 5}"] * 16)
    async with serve(engine, meta_rm=FakeMetaRM([0.9] * 5 + [FAILED])) as client:
        answer = await post(
            client, aggregate="meta_hinge", meta_rm_failure="vote", k=16, stop={"rule": "decided", "gamma": 1e-9}
        )
    assert (answer["k_used"], answer["meta_rm"], answer["rewards"]) == (16, "failed", [5, 5])
    # After a failure the meta RM gets no more requests.
    assert sum(sample["meta_reward"] is not None for sample in answer["samples"]) < 16


@pytest.mark.parametrize(
    ("aggregate", "failure", "status"),
    [("meta_hinge", "error", 503), ("meta_hinge", "vote", 200), ("mean", "error", 200)],
)
async def test_readiness_fails_with_a_dead_meta_rm_only_if_requests_need_it(
    serve: Serve, aggregate: str, failure: str, status: int
) -> None:
    meta_rm = FakeMetaRM()
    defaults = (f"judge.aggregate={aggregate}", f"meta_rm.failure={failure}")
    async with serve(FakeEngine(), *defaults, meta_rm=meta_rm) as client:
        assert (await client.get("/health/ready")).status_code == 200
        meta_rm.dead = FAILED
        ready = await client.get("/health/ready")
        assert (ready.status_code, (await client.post("/v1/rewards", json=PAIR)).status_code) == (status, status)


async def test_at_the_deadline_only_rated_samples_vote(serve: Serve) -> None:
    meta_rm = FakeMetaRM(delay_s=5)
    async with serve(FakeEngine(), meta_rm=meta_rm) as client:
        error = (await post(client, 504, aggregate="meta_hinge", deadline_s=0.2))["error"]
    assert error["code"] == "deadline_exceeded"
    assert meta_rm.running == 0


async def test_a_disconnect_aborts_the_ratings(serve: Serve) -> None:
    meta_rm = FakeMetaRM(delay_s=5)
    async with serve(FakeEngine(), meta_rm=meta_rm) as client:
        request = asyncio.create_task(post(client, aggregate="meta_hinge"))
        await asyncio.sleep(0.1)
        assert meta_rm.running == 4
        request.cancel()
        await asyncio.wait([request])
        await asyncio.sleep(0.05)
        assert meta_rm.running == 0
