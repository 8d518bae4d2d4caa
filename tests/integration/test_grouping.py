"""Single responses are grouped by prompt and judged together: none waits forever, each reward equals that of one
request with the whole group, and retries get the earlier result."""

import asyncio
from random import Random
from typing import Any

import httpx
import pytest

from grm_server.app import create_app
from grm_server.engine.fake import FakeEngine
from grm_server.errors import EngineDead
from grm_server.settings import load_settings
from tests.integration.conftest import Serve
from tests.integration.counting import counters
from tests.integration.judging import stalls_after
from tests.integration.keys import A, bearer, keys_file
from tests.integration.trainers import FAST, PATIENT, Caller, all_at_once, judged_again, post, shuffled, slime

N8 = "/reward?shape=object&n=8"


def samples(prompts: int = 32, n: int = 8) -> list[dict[str, Any]]:
    return [slime(f"Why {p}?", f"Because of {p} and {i}.") for p in range(prompts) for i in range(n)]


async def check(client: httpx.AsyncClient, bodies: list[dict[str, Any]], answers: list[Any]) -> None:
    """Each reward equals that of its response in the judgement that it names."""
    rewards = {judgement: await judged_again(client, judgement) for judgement in {a["judgement"] for a in answers}}
    for body, answer in zip(bodies, answers, strict=True):
        assert answer["reward"] == rewards[answer["judgement"]][body["response"]]


async def test_32_prompts_of_8_in_any_order_over_64_connections(serve: Serve) -> None:
    bodies, pool = shuffled(samples()), asyncio.Semaphore(64)
    async with serve(FakeEngine(delay_s=0.001), *FAST) as client:

        async def call(body: dict[str, Any]) -> Any:
            async with pool:
                return await post(client, body, N8)

        async with asyncio.timeout(60):
            answers = await all_at_once([call(body) for body in bodies])
        await check(client, bodies, answers)
        seen = await counters(client)
    assert seen["grm_groups_open"] == 0
    assert seen['grm_group_size_sum{reason="idle"}'] + seen.get('grm_group_size_sum{reason="full"}', 0) == 256
    assert seen["grm_group_wait_seconds_count"] == 256


async def test_256_posts_with_jitter_duplicates_and_retries_get_the_rewards_of_grouped_calls(serve: Serve) -> None:
    bodies = samples()
    # Some responses are duplicates, as a policy's are.
    for at in range(0, 256, 10):
        bodies[at]["response"] = bodies[at ^ 1]["response"]
    late = bodies[:32]
    random = Random(3)
    async with serve(FakeEngine(), "judge.k=4", "grouping.idle_s=5") as client:

        async def call(body: dict[str, Any]) -> Any:
            await asyncio.sleep(random.random() * 0.2)
            return await post(client, body, N8)

        order = shuffled(bodies)
        answers = await all_at_once([call(body) for body in order])
        assert len({answer["judgement"] for answer in answers}) == 32
        assert {answer["group_size"] for answer in answers} == {8}
        await check(client, order, answers)
        # A retry sends the same body.
        again = await all_at_once([call(body) for body in late])
        first = {(b["prompt"][0]["content"], b["response"]): a for b, a in zip(order, answers, strict=True)}
        for body, answer in zip(late, again, strict=True):
            assert answer == first[(body["prompt"][0]["content"], body["response"])]
        seen = await counters(client)
    assert seen['grm_group_size_count{reason="full"}'] == 32
    assert seen['grm_shared_judgements_total{kind="duplicate"}'] == 26
    assert seen['grm_shared_judgements_total{kind="recent"}'] == 32


async def test_the_order_of_arrival_changes_nothing(tmp_path: Any, serve: Serve) -> None:
    bodies = samples(4)
    rewards = []
    for seed in range(2):
        async with serve(FakeEngine(), "judge.k=4") as client:
            order = shuffled(bodies, seed)
            answers = await all_at_once([post(client, body, N8) for body in order])
            rewards.append({body["response"]: answer["reward"] for body, answer in zip(order, answers, strict=True)})
    assert rewards[0] == rewards[1]


async def test_a_group_closes_when_it_is_complete(serve: Serve) -> None:
    async with serve(FakeEngine(), "grouping.idle_s=60") as client:
        async with asyncio.timeout(5):
            answers = await all_at_once(
                [post(client, slime("Q", f"A{i}"), "/reward?shape=object&n=3") for i in range(3)]
            )
        by_header = client.post("/reward", json=slime("Q2", "A"), headers={"X-GRM-Group-Size": "1"})
        assert isinstance((await by_header).json(), float)
    assert [answer["group_size"] for answer in answers] == [3, 3, 3]


async def test_different_options_make_different_groups(serve: Serve) -> None:
    async with serve(FakeEngine(), *PATIENT) as client:
        bodies = [
            (slime("Q", "A"), ""),
            (slime("\nQ \n", "B"), ""),
            (slime("Q", "C", label="42"), ""),
            (slime("Q", "D"), "&k=3"),
            (slime("Q", "E", group="g"), ""),
            (slime("R", "F"), ""),
        ]
        answers = await all_at_once([post(client, body, f"/reward?shape=object{more}") for body, more in bodies])
    assert [answer["group_size"] for answer in answers] == [2, 2, 1, 1, 1, 1]
    assert answers[0]["judgement"] == answers[1]["judgement"]


async def test_a_group_closes_before_the_trainer_times_out(serve: Serve) -> None:
    async with serve(FakeEngine(), "grouping.idle_s=60", "trainers.slime.timeout_s=0.5") as client:
        async with asyncio.timeout(5):
            answer = await post(client, slime("Q", "A"), N8)
        seen = await counters(client)
    assert answer["group_size"] == 1
    assert seen['grm_group_size_count{reason="deadline"}'] == 1


async def test_a_slow_judge_answers_with_a_partial_vote_before_the_trainer_times_out(serve: Serve) -> None:
    async with serve(FakeEngine(delay_s=stalls_after(2)), "trainers.slime.timeout_s=2", "judge.k=4") as client:
        async with asyncio.timeout(5):
            answer = await post(client, slime("Q", "A"), "/reward?shape=object&n=1")
    assert (answer["k_used"], answer["judgement"] is None) == (2, False)


async def test_too_many_waiting_responses_close_groups_early(serve: Serve) -> None:
    async with serve(FakeEngine(), "grouping.idle_s=1", "grouping.max_waiting=4", "judge.k=1") as client:
        answers = await all_at_once([post(client, slime(f"Q{i}", "A"), N8) for i in range(12)])
        seen = await counters(client)
    assert len(answers) == 12
    assert seen['grm_group_size_count{reason="pressure"}'] == 8
    assert seen['grm_group_size_count{reason="idle"}'] == 4


async def test_a_group_is_split_at_the_limit_of_one_request(serve: Serve) -> None:
    async with serve(FakeEngine(), "limits.max_responses=4", *PATIENT) as client:
        answers = await all_at_once([post(client, slime("Q", f"A{i}"), N8) for i in range(8)])
    assert [answer["group_size"] for answer in answers] == [4] * 8
    assert len({answer["judgement"] for answer in answers}) == 2


async def test_a_duplicate_joins_the_judgement_in_flight(serve: Serve) -> None:
    engine = FakeEngine(delay_s=0.2)
    async with serve(engine, "judge.k=2") as client:
        first = asyncio.create_task(post(client, slime("Q", "A"), "/reward?shape=object&n=1"))
        while not engine.started:
            await asyncio.sleep(0.001)
        second = await post(client, slime("Q", "A"), "/reward?shape=object&n=1")
        assert await first == second
        seen = await counters(client)
    assert engine.started == 2
    assert seen['grm_shared_judgements_total{kind="in_flight"}'] == 1


async def test_a_disconnect_removes_a_response_from_its_group(tmp_path: Any) -> None:
    engine = FakeEngine()
    settings = load_settings({}, [f"cache_dir={tmp_path}", "stopping.rule=fixed", "judge.k=2", "grouping.idle_s=60"])
    app = create_app(settings, engine)
    async with app.router.lifespan_context(app):
        gone = Caller(app, slime("Q", "A"), query=b"shape=object&n=2")
        await asyncio.sleep(0.01)
        await gone.hang_up()
        assert app.state.service.grouper.open_groups == 0
        # Its retry opens the group again, which waits for the other response.
        retry = Caller(app, slime("Q", "A"), query=b"shape=object&n=2")
        await asyncio.sleep(0.01)
        assert not engine.started
        other = Caller(app, slime("Q", "B"), query=b"shape=object&n=2")
        answers = [await retry.answer(), await other.answer()]
    assert [answer["group_size"] for answer in answers] == [2, 2]


async def test_retries_get_a_judgement_that_outlived_its_clients(tmp_path: Any) -> None:
    engine = FakeEngine(delay_s=0.1)
    app = create_app(load_settings({}, [f"cache_dir={tmp_path}", "stopping.rule=fixed", "judge.k=2"]), engine)
    async with app.router.lifespan_context(app):
        gone = Caller(app, slime("Q", "A"), query=b"shape=object&n=1")
        while not engine.started:
            await asyncio.sleep(0.001)
        await gone.hang_up()
        assert engine.aborted == 0
        retry = await Caller(app, slime("Q", "A"), query=b"shape=object&n=1").answer()
        later = await Caller(app, slime("Q", "A"), query=b"shape=object&n=1").answer()
    assert retry == later
    assert engine.started == engine.finished == 2


async def test_a_failed_judgement_is_retried(serve: Serve) -> None:
    engine = FakeEngine(["no"] * 2)
    async with serve(engine, *FAST) as client:
        failed = await post(client, slime("Q", "A"))
        again = await post(client, slime("Q", "A"))
    assert (failed["reward"], failed["judgement"]) == (5.5, None)
    assert again["judgement"] is not None


async def test_a_shutdown_leaves_nothing_running(tmp_path: Any) -> None:
    engine = FakeEngine(delay_s=60)
    app = create_app(load_settings({}, [f"cache_dir={tmp_path}", "judge.k=2"]), engine)
    async with app.router.lifespan_context(app):
        judged = Caller(app, slime("Q", "A"), query=b"n=1")
        waiting = Caller(app, slime("R", "A"), query=b"n=2")
        while not (engine.started and app.state.service.grouper.open_groups):
            await asyncio.sleep(0.001)
    assert engine.running == 0
    for caller in (judged, waiting):
        with pytest.raises(asyncio.CancelledError):
            await caller.answer()


async def test_a_dead_engine_is_not_cached(serve: Serve) -> None:
    engine = FakeEngine()
    async with serve(engine, *FAST, "trainers.slime.failure=error") as client:
        engine.dead = EngineDead("the engine's process has died")
        dead = await client.post("/reward", json=slime("Q", "A"))
        engine.dead = None
        alive = await client.post("/reward", json=slime("Q", "A"))
    assert (dead.status_code, dead.headers["Retry-After"], alive.status_code) == (503, "30", 200)


async def test_an_oversized_response_is_charged_once(serve: Serve, tmp_path: Any) -> None:
    limits = keys_file(tmp_path, a="samples_per_minute = 16")
    settings = (limits, "grouping.idle_s=60", "judge.k=4")
    async with serve(FakeEngine(max_model_len=2500), *settings) as client:
        client.headers.update(bearer(A))
        sent = [client.post("/reward?n=4", json=slime("Q", text)) for text in ("A", "B", "C", "word " * 3000)]
        assert [answer.status_code for answer in await all_at_once(sent)] == [200] * 4
        # A group of four used four samples, so twelve are left.
        for name in "abc":
            assert (await client.post("/reward?n=1", json=slime(name, "A"))).status_code == 200


async def test_a_wait_longer_than_any_request_is_refused(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        answer = await client.post("/reward?n=2&idle_s=1e9", json=slime("Q", "A"))
        error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "limit_exceeded", "idle_s")


async def test_the_total_size_of_waiting_texts_is_limited(serve: Serve) -> None:
    async with serve(FakeEngine(), "grouping.idle_s=60", "grouping.max_waiting_mib=1", "judge.k=1") as client:
        waiting = asyncio.ensure_future(post(client, slime("short", "A"), N8))
        long = [post(client, slime(f"Q{i}", "word" * 2**16), "/reward?shape=object&n=2") for i in range(5)]
        calls = [asyncio.ensure_future(call) for call in long]
        async with asyncio.timeout(20):
            while sum(call.done() for call in calls) != 2:
                await asyncio.sleep(0.01)
        # One tenant holds them all, and its oldest groups are closed first.
        assert (await waiting)["group_size"] == 1
        for call in calls:
            call.cancel()
        seen = await counters(client)
    assert seen['grm_group_size_count{reason="pressure"}'] == 3
