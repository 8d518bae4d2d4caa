"""Groups and slots named by the trainer: a retry gets its reward, another response is a conflict."""

import asyncio
from typing import Any

from grm_server.app import create_app
from grm_server.engine.fake import FakeEngine
from grm_server.settings import load_settings
from tests.integration.conftest import Serve
from tests.integration.counting import counters
from tests.integration.trainers import PATIENT, Caller, all_at_once, post, slime


def slot(index: int, response: str, **more: Any) -> dict[str, Any]:
    return slime("Q", response, group="g1", slot=index) | more


async def test_slots(serve: Serve) -> None:
    async with serve(FakeEngine(), *PATIENT) as client:
        url = "/reward?shape=object&n=2"
        first, second = await all_at_once([post(client, slot(i, f"A{i}"), url) for i in range(2)])
        assert first["judgement"] == second["judgement"]
        assert await post(client, slot(0, "A0"), url) == first
        for body in (slot(0, "other"), slot(0, "A0", prompt="other")):
            conflict = await client.post(url, json=body)
            assert (conflict.status_code, conflict.json()["error"]["code"]) == (409, "slot_conflict")
        # A response that arrives after the group closed is judged alone, with group_size 1.
        late = await post(client, slot(2, "A2"), url)
        assert (late["group_size"], late["judgement"] == first["judgement"]) == (1, False)


async def test_a_repeated_slot_in_an_open_group_is_one_member(serve: Serve) -> None:
    async with serve(FakeEngine(), *PATIENT) as client:
        bodies = [slot(0, "A0"), slot(0, "A0"), slot(1, "A1")]
        answers = await all_at_once([post(client, b, "/reward?shape=object&n=3") for b in bodies])
        seen = await counters(client)
    assert [answer["group_size"] for answer in answers] == [2, 2, 2]
    assert seen['grm_group_size_count{reason="idle"}'] == 1


async def test_a_slot_is_kept_after_a_disconnect(tmp_path: Any) -> None:
    settings = load_settings({}, [f"cache_dir={tmp_path}", "grouping.idle_s=60", "judge.k=2"])
    app = create_app(settings, FakeEngine())
    async with app.router.lifespan_context(app):
        gone = Caller(app, slot(0, "A0"), query=b"shape=object&n=2")
        while not app.state.service.grouper.open_groups:
            await asyncio.sleep(0.001)
        await gone.hang_up()
        other = await Caller(app, slot(1, "A1"), query=b"shape=object&n=2").answer()
        retry = await Caller(app, slot(0, "A0"), query=b"shape=object&n=2").answer()
    assert (other["group_size"], retry["judgement"]) == (2, other["judgement"])


async def test_a_later_attempt_retires_an_earlier_one(serve: Serve) -> None:
    async with serve(FakeEngine(), "grouping.idle_s=60", "judge.k=2") as client:
        url = "/reward?shape=object&n=2"
        old = asyncio.create_task(client.post(url, json=slot(0, "A0")))
        while not (await counters(client))["grm_groups_open"]:
            await asyncio.sleep(0.001)
        new = await all_at_once([post(client, slot(i, f"B{i}", attempt=1), url) for i in range(2)])
        assert ((await old).status_code, (await old).json()["error"]["code"]) == (503, "superseded")
        stale = await client.post(url, json=slot(1, "A1"))
    assert [answer["group_size"] for answer in new] == [2, 2]
    assert stale.status_code == 409


async def test_a_judgement_abandoned_before_it_began_leaves_nothing(tmp_path: Any) -> None:
    engine = FakeEngine()
    settings = [f"cache_dir={tmp_path}", "grouping.idle_s=60", "grouping.max_waiting=1", "judge.k=2"]
    app = create_app(load_settings({}, settings), engine)
    async with app.router.lifespan_context(app):
        gone = Caller(app, slot(0, "A0"), query=b"n=2")
        while not app.state.service.grouper.open_groups:
            await asyncio.sleep(0.001)
        await gone.hang_up()
        # Two more groups arrive in one call. Only one response may wait: the first closes A0's group, and the second
        # abandons it, which has no client and whose task has not run yet.
        body = {"query": ["p a", "q b"], "prompts": ["p ", "q "], "labels": ["", ""]}
        answer = await Caller(app, body, "/get_reward", b"n=2&idle_s=0.02").answer()
        assert answer["extra_logs"]["grm_failed"] == [0.0, 0.0]
        assert not any("A0" in script.prompt for script, *_ in engine.calls)
        retry = await Caller(app, slot(0, "A0"), query=b"shape=object&n=1").answer()
    assert (retry["group_size"], retry["judgement"] is None) == (1, False)
    assert any("A0" in script.prompt for script, *_ in engine.calls)
