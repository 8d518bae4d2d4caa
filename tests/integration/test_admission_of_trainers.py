"""Trainers under load: they wait instead of being refused, and tenants share nothing. With a fake engine."""

import asyncio
from pathlib import Path
from typing import Any

from grm_server.engine.fake import FakeEngine
from tests.integration.counting import counters
from tests.integration.load import FULL, answers, key, loaded
from tests.integration.trainers import slime


async def test_a_group_is_queued_even_if_it_may_time_out(tmp_path: Path) -> None:
    overrides = (FULL, "grouping.idle_s=0.01", "judge.k=1", "trainers.slime.timeout_s=2")
    engine = FakeEngine(gate=(gate := asyncio.Event()), delay_s=0.05, max_running=4)
    async with loaded(tmp_path, engine, *overrides) as server:
        gate.set()
        await answers(server.burst(12))
        gate.clear()
        server.burst(400)
        await server.until_waiting(396)
        # Five seconds of work are ahead of it; its client times out after two.
        answer = await server.client.post("/reward?shape=object", json=slime("Why?", "A."))
        assert (answer.status_code, answer.json()["reward"], answer.json()["judgement"]) == (200, 5.5, None)
        metrics = await counters(server.client)
        assert metrics['grm_requests_total{code="deadline_exceeded"}'] == 1
        assert 'grm_refused_requests_total{reason="deadline"}' not in metrics
        await server.hang_up()
        await server.until_empty()


async def test_a_full_queue_is_a_failure_like_any_other_to_a_trainer(tmp_path: Path) -> None:
    engine = FakeEngine(gate=(gate := asyncio.Event()))
    overrides = (FULL, "grouping.idle_s=0.01", "judge.k=1", "admission.max_waiting_samples=10")
    async with loaded(tmp_path, engine, *overrides) as server:
        burst = server.burst(14)
        await server.until_waiting(10)
        answer = await server.client.post("/reward?shape=object", json=slime("Why?", "A."))
        assert (answer.status_code, answer.json()["reward"], answer.json()["judgement"]) == (200, 5.5, None)
        chat = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "A."}]}
        refused = await server.client.post("/v1/chat/completions", json=chat)
        assert (refused.status_code, "retry-after" in refused.headers) == (429, True)
        call = {"query": "Why?", "documents": ["A.", "B."]}
        refused = await server.client.post("/v1/rerank", json=call)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "overloaded")
        gate.set()
        await answers(burst)
        await server.until_empty()


async def test_the_url_sets_the_priority(tmp_path: Path) -> None:
    engine = FakeEngine(gate=(gate := asyncio.Event()), max_running=1)
    overrides = ("admission.max_running_samples=1", "grouping.idle_s=0.01", "judge.k=1")
    async with loaded(tmp_path, engine, *overrides) as server:
        burst = server.burst(20)
        await server.until_waiting(19)
        first = asyncio.ensure_future(server.client.post("/reward?priority=high", json=slime("Why?", "A.")))
        await server.until_waiting(20)
        gate.set()
        engine.delay_s = 0.01
        assert (await first).status_code == 200
        assert sum(call.done() for call in burst) <= 3
        await answers(burst)
        wrong = await server.client.post("/reward?priority=urgent", json=slime("Why?", "A."))
        assert wrong.status_code == 422


async def test_two_tenants_never_share_a_group_a_reward_or_a_slot(tmp_path: Path) -> None:
    async with loaded(tmp_path, FakeEngine(), "judge.k=1", "grouping.idle_s=0.5") as server:

        async def post(tenant: str, **more: Any) -> Any:
            body = slime("Why?", "A.", **more)
            answer = await server.client.post("/reward?shape=object&n=1", json=body, headers=key(tenant))
            assert answer.status_code == 200, answer.text
            return answer.json()

        one, same, other = await post("A"), await post("A"), await post("B")
        assert one["judgement"] == same["judgement"] != other["judgement"]
        assert one["reward"] == other["reward"]
        # Tenant A has taken its slot; tenant B has a slot of the same name.
        named = {"group": "g", "slot": 0}
        await post("A", **named)
        body = slime("Why?", "Another.", **named)
        answers = [await server.client.post("/reward?n=1", json=body, headers=key(tenant)) for tenant in "AB"]
        assert [answer.status_code for answer in answers] == [409, 200]
