"""Principles drawn once per query, over HTTP with a fake engine."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from grm_server.engine.fake import FakeCall, FakeEngine
from grm_server.engine.protocol import Outcome
from grm_server.errors import EngineDead, GenerationFailed
from grm_server.grm.script import Sample, plain
from grm_server.meta_rm.fake import FakeMetaRM
from tests.integration.conftest import Serve
from tests.integration.counting import counters
from tests.integration.judging import PAIR, post

OTHERS = ["C.", "D."]
ONCE: dict[str, Any] = {"principles_from": "query", "k": 4, "return_samples": True, "max_critique_tokens": 100}


class Judge(FakeEngine):
    """Draws these principles for a query, and counts how often."""

    def __init__(
        self,
        text: Outcome | str = " Be right.",
        *,
        draw_s: float = 0.0,
        sample_s: float = 0.0,
        gate: asyncio.Event | None = None,
    ) -> None:
        """`draw_s`, `sample_s`: how long principles and samples take."""
        super().__init__(
            score=self.draw, delay_s=lambda call: draw_s if draws_principles(call) else sample_s, gate=gate
        )
        self.text = text
        self.drawn = 0

    def draw(self, call: FakeCall) -> Outcome | None:
        if not draws_principles(call):
            return None
        self.drawn += 1
        return Sample({"principles": self.text}, completion_tokens=7) if isinstance(self.text, str) else self.text


def draws_principles(call: FakeCall) -> bool:
    return len(call.script.segments) == 1


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not met():
            await asyncio.sleep(0.002)


async def outcomes(client: httpx.AsyncClient) -> dict[str, float]:
    seen = await counters(client)
    return {name.split('"')[1]: count for name, count in seen.items() if name.startswith("grm_principles_total")}


async def test_they_are_drawn_once_and_used_by_all_samples(serve: Serve) -> None:
    async with serve(engine := Judge()) as client:
        first = await post(client, **ONCE)
        second = await post(client, **ONCE, responses=OTHERS)
        counted = await outcomes(client)
    assert engine.drawn == 1
    assert [answer["principles"] for answer in (first, second)] == ["Be right.", "Be right."]
    assert [answer["principles_from"] for answer in (first, second)] == ["query", "cache"]
    assert [answer["usage"]["principle_tokens"] for answer in (first, second)] == [7, 0]
    assert all(sample["principles"] is None for sample in first["samples"])
    assert counted == {"drawn": 1, "cached": 1}
    drawing, *judging = [script for script, _, _ in engine.calls]
    assert drawing.segments[0].max_tokens == 50
    for script in judging:
        assert "#### Principles ####\nJudge under these principles:\nBe right." in script.prompt
        critique, _ = script.segments
        # The critique's budget is what a sample with its own principles would have left.
        assert (plain(critique.lead), critique.max_tokens) == ("Specific Criteria: Be right.\nAnalysis:", 50)


async def test_concurrent_groups_share_one_drawing(serve: Serve) -> None:
    async with serve(engine := Judge(draw_s=0.1)) as client:
        asked = [asyncio.ensure_future(post(client, **ONCE, responses=[f"{i}", "x"])) for i in range(5)]
        answers = [await each for each in asked]
        assert len(client.service.judging.principles) == 0
    assert engine.drawn == 1
    assert sorted(answer["principles_from"] for answer in answers) == ["cache"] * 4 + ["query"]
    assert sum(answer["usage"]["principle_tokens"] for answer in answers) == 7
    assert all(answer["timing"]["total_s"] >= 0.1 for answer in answers)


async def test_another_query_or_reference_has_its_own_principles(serve: Serve) -> None:
    async with serve(engine := Judge()) as client:
        changes: list[dict[str, Any]] = [{}, {"query": "Why not?"}, {"reference": "Because."}]
        for change in changes:
            assert (await post(client, **ONCE, **change))["principles_from"] == "query"
    assert engine.drawn == 3


async def test_the_judgement_can_be_repeated(serve: Serve) -> None:
    async with serve(engine := Judge()) as client:
        answer = await post(client, **ONCE)
        stored = (await client.get(f"/v1/judgements/{answer['id']}")).json()
        again = (await client.post("/v1/rewards", json=stored["request"] | {"return_samples": True})).json()
    assert stored["answer"] == answer
    assert again["principles_from"] == "request"
    for sample, same in zip(answer["samples"], again["samples"], strict=True):
        assert same == sample | {"finished_s": same["finished_s"]}
    assert engine.drawn == 1


async def test_the_clients_own_principles_win(serve: Serve) -> None:
    async with serve(engine := Judge()) as client:
        answer = await post(client, **ONCE, principles="Be kind.")
    assert (answer["principles"], answer["principles_from"], engine.drawn) == ("Be kind.", "request", 0)


async def test_by_default_each_sample_writes_its_own(serve: Serve) -> None:
    async with serve(engine := Judge()) as client:
        answer = await post(client, return_samples=True)
    assert (answer["principles"], answer["principles_from"], engine.drawn) == (None, "sample", 0)
    assert answer["samples"][0]["principles"] == "Correctness (weight 1)."


async def test_a_server_may_draw_them_unless_a_request_says_otherwise(serve: Serve) -> None:
    async with serve(Judge(), "judge.principles_from=query") as client:
        assert (await post(client))["principles_from"] == "query"
        assert (await post(client, principles_from="sample"))["principles_from"] == "sample"


@pytest.mark.parametrize(
    "nothing",
    [" ", Sample({"principles": "on and on"}, ("principles",)), GenerationFailed("x")],
    ids=["empty", "cut", "failed"],
)
async def test_unusable_principles_fall_back_to_per_sample_ones(serve: Serve, nothing: Any) -> None:
    async with serve(engine := Judge(nothing), "cache.max_mib=1") as client:
        first = await post(client, **ONCE)
        engine.text = " Be right."
        # Neither the failure nor the fallback answer is cached.
        second = await post(client, **ONCE)
        counted = await outcomes(client)
    assert (first["principles"], first["principles_from"], first["k_valid"]) == (None, "sample", 4)
    assert first["samples"][0]["principles"] == "Correctness (weight 1)."
    assert (second["shared"], second["principles_from"]) == (None, "query")
    assert counted == {"failed": 1, "drawn": 1}


async def test_after_half_the_deadline_it_falls_back_to_per_sample_principles(serve: Serve) -> None:
    async with serve(engine := Judge(draw_s=60)) as client:
        answer = await post(client, **ONCE, deadline_s=4.0)
        counted = await outcomes(client)
    assert (answer["principles_from"], answer["stop_reason"], answer["k_valid"]) == ("sample", "full_k", 4)
    assert 2.0 <= answer["timing"]["total_s"] < 4.0
    assert counted == {"late": 1}
    assert engine.running == 0


async def test_drawing_counts_against_the_deadline(serve: Serve) -> None:
    async with serve(Judge(draw_s=2.3, sample_s=60)) as client:
        started_s = asyncio.get_running_loop().time()
        response = await client.post("/v1/rewards", json=PAIR | ONCE | {"deadline_s": 5})
        took_s = asyncio.get_running_loop().time() - started_s
    assert response.json()["error"]["code"] == "deadline_exceeded"
    assert took_s < 7.2, "not 2.3 s + 5 s"


async def test_the_drawing_is_queued_as_one_sample(serve: Serve) -> None:
    async with serve(engine := Judge(gate=(gate := asyncio.Event())), "admission.max_running_samples=1") as client:
        busy = asyncio.ensure_future(post(client, query="Another.", k=1))
        await until(lambda: len(engine.calls) == 1)
        queued = asyncio.ensure_future(post(client, **ONCE))
        async with asyncio.timeout(10):
            while not (waiting := (await counters(client))["grm_waiting_samples"]):
                await asyncio.sleep(0.01)
        gate.set()
        await busy
        assert (waiting, (await queued)["principles_from"]) == (1, "query")


async def test_a_request_with_more_time_does_not_fail_with_the_one_it_joined(serve: Serve) -> None:
    async with serve(engine := Judge(gate=(gate := asyncio.Event())), "admission.max_running_samples=1") as client:
        busy = asyncio.ensure_future(post(client, query="Another.", k=1))
        await until(lambda: len(engine.calls) == 1)
        first = asyncio.ensure_future(client.post("/v1/rewards", json=PAIR | ONCE | {"deadline_s": 1.0}))
        await until(lambda: len(client.service.judging.principles) == 1)
        second = asyncio.ensure_future(post(client, **ONCE, responses=OTHERS))
        assert (await first).json()["error"]["code"] == "deadline_exceeded"
        gate.set()
        await busy
        assert (await second)["principles_from"] == "sample"
    assert engine.drawn == 0


async def test_an_engine_that_dies_meanwhile_fails_all_waiting_requests(serve: Serve) -> None:
    async with serve(engine := Judge(draw_s=0.2)) as client:
        calls = [
            asyncio.ensure_future(client.post("/v1/rewards", json=PAIR | ONCE | {"responses": [f"{i}", "x"]}))
            for i in range(3)
        ]
        await asyncio.sleep(0.1)
        engine.dead = EngineDead("gone")
        assert [(await each).status_code for each in calls] == [503] * 3
        engine.dead = None
        assert (await post(client, **ONCE))["principles_from"] == "query"


async def test_a_query_that_is_too_long_is_refused(serve: Serve) -> None:
    async with serve(Judge()) as client:
        response = await client.post("/v1/rewards", json=PAIR | ONCE | {"query": "word " * 9000})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "prompt_too_long")


async def test_the_meta_rm_reads_them(serve: Serve) -> None:
    meta_rm = FakeMetaRM()
    async with serve(Judge(), meta_rm=meta_rm) as client:
        await post(client, **ONCE, aggregate="meta_hinge")
    assert meta_rm.answers[0].startswith("Specific Criteria: Be right.\nAnalysis: Reading ")


async def test_a_trainers_url_can_request_them(serve: Serve) -> None:
    call = {"query": ["Q?\n\nAssistant: A."], "prompts": ["Q?\n\nAssistant:"]}
    async with serve(engine := Judge()) as client:
        for n in range(2):
            body = call | {"query": [f"{call['query'][0]}{n}"]}
            await client.post("/get_reward?n=1&k=2&principles_from=query", json=body)
        counted = await outcomes(client)
    assert (engine.drawn, counted) == (1, {"drawn": 1, "cached": 1})


async def test_a_stream_returns_them(serve: Serve) -> None:
    async with serve(Judge()) as client:
        answer = await client.post("/v1/rewards", json=PAIR | ONCE, headers={"accept": "text/event-stream"})
    assert '"principles":"Be right.","principles_from":"query"' in answer.text


async def test_a_judgement_with_the_smallest_budget_can_be_repeated(serve: Serve) -> None:
    async with serve(Judge()) as client:
        answer = await post(client, **(ONCE | {"max_critique_tokens": 16}))
        stored = await client.get(f"/v1/judgements/{answer['id']}")
    assert (stored.status_code, stored.json()["request"]["max_critique_tokens"]) == (200, 16)
