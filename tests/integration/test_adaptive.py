"""Stopping, deadlines, blocks, streams and what is learnt, over HTTP around a fake engine."""

import asyncio
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from grm_server.api import stream as stream_module
from grm_server.app import create_app
from grm_server.engine.base import Urgency
from grm_server.engine.fake import FakeSampler
from grm_server.errors import EngineDead
from grm_server.grm.types import Sample
from grm_server.serving import priors
from grm_server.settings import SettingsError, load_settings
from tests.integration.conftest import Serve

PAIR = {"query": "Why?", "responses": ["A.", "B."], "k": 16, "seed": 5}


async def post(client: httpx.AsyncClient, **changes: Any) -> dict[str, Any]:
    response = await client.post("/v1/rewards", json=PAIR | changes)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def favours(best: str) -> Any:
    """A fake judge that gives the response with this text a 9 and the others a 3, wherever they stand."""

    class Judge(FakeSampler):
        async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
            shown = prepared.script.prompt.split("[The Begin of Response ")[1:]
            self.outcomes.append(", ".join("9" if best in text else "3" for text in shown) + "}")
            return await super()._write(prepared, seed, urgency)

    return Judge


async def test_a_clear_request_stops_early_and_says_how_sure_it_is(serve: Serve) -> None:
    sampler = favours("B.")()
    async with serve(sampler) as client:
        answer = await post(client, stop={"rule": "decided", "gamma": 0.05})
    assert (answer["stop_reason"], answer["k"], answer["k_used"], answer["k_valid"]) == ("decided", 16, 4, 4)
    assert answer["best"] == 1
    assert 0 < answer["risk_full_k"] <= 0.05
    assert answer["p_best"][1] > 0.95
    assert answer["p_greater"][1][0] == pytest.approx(answer["p_best"][1], abs=1e-3)
    # The posterior mean: between even and what four samples say.
    assert 3 < answer["rewards"][0] < answer["rewards"][1] < 9
    assert answer["vote_sums"] == [12, 36]
    assert answer["usage"]["samples"] == sampler.started == 4
    assert answer["position_effect"] == [0.0, 0.0]
    assert answer["p_best_label"] is None


async def test_a_close_request_goes_on_to_k(serve: Serve) -> None:
    sampler = FakeSampler(["5, 5}"] * 16)
    async with serve(sampler) as client:
        answer = await post(client, stop={"rule": "decided"})
    assert (answer["stop_reason"], answer["k_used"], answer["risk_full_k"]) == ("full_k", 16, 0)
    assert answer["rewards"] == [5, 5]
    assert answer["ties"] == [[0, 1]]


async def test_waves_take_the_same_draws_as_all_at_once(serve: Serve) -> None:
    async with serve(FakeSampler()) as client:
        waves = await post(client, stop={"rule": "precision", "se": 1e-9}, return_samples=True)
        fixed = await post(client, stop={"rule": "fixed"}, return_samples=True)
    assert waves["stop_reason"] == fixed["stop_reason"] == "full_k"
    assert waves["rewards"] == fixed["rewards"]
    for one, other in zip(waves["samples"], fixed["samples"], strict=True):
        assert (one["index"], one["order"], one["seed"], one["scores"]) == (
            other["index"],
            other["order"],
            other["seed"],
            other["scores"],
        )


async def test_later_waves_do_not_queue_behind_new_requests(serve: Serve) -> None:
    sampler = FakeSampler(["5, 5}"] * 16)
    async with serve(sampler) as client:
        await post(client, stop={"rule": "decided"})
    assert sampler.urgencies == [Urgency.NEW] * 4 + [Urgency.BEGUN] * 12


@pytest.mark.parametrize(
    ("stop", "reason"), [({"rule": "precision", "se": 0.9}, "precision"), ({"rule": "strict", "delta": 0.1}, "strict")]
)
async def test_other_rules(serve: Serve, stop: dict[str, Any], reason: str) -> None:
    async with serve(favours("A.")()) as client:
        answer = await post(client, stop=stop)
    assert answer["stop_reason"] == reason
    assert answer["k_used"] < 16
    if reason == "precision":
        assert max(answer["se"]) <= 0.9
        assert answer["rewards"] == [9, 3]


async def test_the_servers_own_rule_and_levels(serve: Serve) -> None:
    async with serve(favours("A.")(), "stopping.rule=decided", "stopping.gamma=1e-9") as client:
        default = await post(client)
        asked = await post(client, stop={"rule": "decided", "gamma": 0.1})
        inherited = await post(client, stop={"rule": "decided", "target": "ranking"})
    assert default["risk_full_k"] <= 1e-9 or default["stop_reason"] == "full_k"
    assert asked["k_used"] == 4
    assert inherited["k_used"] == default["k_used"] > 4


@pytest.mark.parametrize("rule", ["strict", "decided", "precision"])
async def test_the_rule_of_the_settings(serve: Serve, rule: str) -> None:
    async with serve(favours("A.")(), f"stopping.rule={rule}", "stopping.se=1", "stopping.delta=0.3") as client:
        assert (await post(client))["stop_reason"] == rule


async def test_one_response_is_read_to_k(serve: Serve) -> None:
    async with serve(FakeSampler(["7}"] * 8)) as client:
        answer = await post(client, responses=["A."], k=8, stop={"rule": "decided"})
    assert (answer["stop_reason"], answer["k_used"], answer["rewards"]) == ("full_k", 8, [7])
    assert answer["p_best"] == [1]
    assert answer["position_effect"] is None


async def test_votes_that_are_asked_for_are_drawn_before_anything_stops(serve: Serve) -> None:
    async with serve(favours("B.")()) as client:
        answer = await post(client, stop={"rule": "decided"}, min_votes=6)
        group = await post(client, responses=LONG[:8], k=32, stop={"rule": "decided"}, min_votes=20)
    assert (answer["stop_reason"], answer["k_used"]) == ("decided", 8)
    assert min(group["votes"]) >= 20


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (("stopping.rule=strict",), {"responses": ["A."], "k": 4}),
        (("stopping.rule=strict",), {"responses": [f"{i}." for i in range(10)], "k": 4}),
        (("judge.aggregate=vote",), {"responses": ["A."], "k": 4}),
        ((), {"responses": ["A."], "k": 4, "stop": {"rule": "strict"}}),
    ],
)
async def test_defaults_that_do_not_fit_a_request_give_way(
    serve: Serve, settings: tuple[str, ...], change: dict[str, Any]
) -> None:
    async with serve(FakeSampler(), *settings) as client:
        answer = await post(client, **change)
    assert all(reward >= 1 for reward in answer["rewards"])
    assert len(answer["rewards"]) == len(change["responses"])


def test_defaults_that_can_never_work_stop_the_start() -> None:
    with pytest.raises(SettingsError, match="winsorised"):
        create_app(load_settings({}, ["stopping.rule=strict", "judge.aggregate=winsorised"]))


async def test_more_samples_than_the_server_gives(serve: Serve) -> None:
    async with serve(FakeSampler(), "limits.max_samples=30") as client:
        response = await client.post("/v1/rewards", json=PAIR | {"responses": LONG, "k": 16})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["details"]) == (422, "k", {"samples": 48, "limit": 30})


@pytest.mark.parametrize("field", ["k", "min_votes", "max_critique_tokens", "list_size"])
async def test_numbers_without_end_are_refused(serve: Serve, field: str) -> None:
    content = json.dumps(PAIR)[:-1] + f', "{field}": 1{"0" * 400}}}'
    async with serve(FakeSampler()) as client:
        response = await client.post("/v1/rewards", content=content, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["error"]["param"]) == (422, field)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"stop": "decided"}, "stop"),
        ({"stop": {"rule": "never"}}, "stop"),
        ({"stop": {"rule": "decided", "gamma": 0}}, "stop.gamma"),
        ({"stop": {"rule": "decided", "delta": 0.1}}, "stop.delta"),
        ({"stop": {"rule": "precision", "se": -1}}, "stop.se"),
        ({"stop": {"rule": "strict", "delta": "0.1"}}, "stop.delta"),
        ({"aggregate": "median"}, "aggregate"),
        ({"reading": "guess"}, "reading"),
        ({"list_size": 1}, "list_size"),
        ({"task": "two words"}, "task"),
        ({"deadline_s": 0}, "deadline_s"),
    ],
)
async def test_a_wrong_choice_is_named(serve: Serve, change: dict[str, Any], param: str) -> None:
    async with serve(FakeSampler()) as client:
        response = await client.post("/v1/rewards", json=PAIR | change)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (422, "invalid_body", param)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"responses": ["A."], "aggregate": "vote"}, "aggregate"),
        ({"responses": ["A."], "aggregate": "borda"}, "aggregate"),
        ({"stop": {"rule": "strict"}, "aggregate": "winsorised"}, "stop"),
        ({"stop": {"rule": "strict"}, "reading": "expected"}, "stop"),
        ({"stop": {"rule": "strict"}, "responses": ["A."] * 9, "list_size": 8}, "stop"),
    ],
)
async def test_choices_that_do_not_go_together(serve: Serve, change: dict[str, Any], param: str) -> None:
    async with serve(FakeSampler()) as client:
        response = await client.post("/v1/rewards", json=PAIR | change)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_request", param)


async def test_a_deadline_over_the_servers(serve: Serve) -> None:
    async with serve(FakeSampler(), "limits.max_deadline_s=5") as client:
        response = await client.post("/v1/rewards", json=PAIR | {"deadline_s": 6})
    assert (response.status_code, response.json()["error"]["param"]) == (422, "deadline_s")


@pytest.mark.parametrize(
    ("aggregate", "rewards"),
    [("mean", [3.0, 9.0]), ("winsorised", [3.0, 9.0]), ("vote", [0.0, 1.0]), ("borda", [0.0, 1.0])],
)
async def test_aggregates(serve: Serve, aggregate: str, rewards: list[float]) -> None:
    async with serve(favours("B.")()) as client:
        answer = await post(client, aggregate=aggregate, k=4)
    assert answer["rewards"] == rewards
    assert answer["vote_sums"] == [12, 36]


class Slow(FakeSampler):
    """The first `quick` samples take no time, the others take for ever."""

    def __init__(self, quick: int, *args: Any) -> None:
        super().__init__(*args)
        self.quick = quick

    async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
        self.delay_s = 0.0 if self.started < self.quick else 60.0
        return await super()._write(prepared, seed, urgency)


async def test_a_deadline_in_the_second_wave_returns_the_votes_so_far(serve: Serve) -> None:
    sampler = Slow(6, ["5, 6}"] * 16)
    async with serve(sampler) as client:
        # Long enough that a machine which stalls for a moment still gets the quick samples.
        answer = await post(client, stop={"rule": "decided"}, deadline_s=0.5, return_samples=True)
    assert (answer["stop_reason"], answer["k_used"], answer["k_valid"]) == ("deadline", 6, 6)
    assert len(answer["samples"]) == 6
    assert 0 < answer["risk_full_k"] <= 1
    assert answer["timing"]["total_s"] < 1
    # Nothing keeps running.
    assert sampler.running == 0
    assert (sampler.started, sampler.aborted) == (8, 2)


async def test_a_deadline_without_enough_votes_says_what_was_done(serve: Serve) -> None:
    sampler = Slow(3, ["no", "5, 6}", "5, 6}"])
    async with serve(sampler) as client:
        response = await client.post("/v1/rewards", json=PAIR | {"deadline_s": 0.1, "min_votes": 3})
        metrics = (await client.get("/metrics")).text
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["retryable"]) == (504, "deadline_exceeded", True)
    assert error["details"] == {"finished": 3, "begun": 16, "no_scores": 1}
    assert sampler.running == 0
    assert 'grm_samples_total{outcome="aborted"} 13.0' in metrics
    assert 'grm_requests_total{code="deadline_exceeded"} 1.0' in metrics


async def test_a_deadline_counts_from_arrival(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = Slow(4, ["5, 6}"] * 4)
    prepare = sampler.prepare

    def slowly(script: Any) -> Any:
        time.sleep(0.2)
        return prepare(script)

    monkeypatch.setattr(sampler, "prepare", slowly)
    async with serve(sampler) as client:
        answer = await post(client, deadline_s=0.6)
    assert answer["stop_reason"] == "deadline"
    # Two prompts took 0.4 s of it.
    assert answer["timing"]["total_s"] < 0.75


async def test_a_deadline_before_the_first_sample(serve: Serve) -> None:
    async with serve(FakeSampler(delay_s=60)) as client:
        response = await client.post("/v1/rewards", json=PAIR | {"deadline_s": 0.05})
    assert (response.status_code, response.json()["error"]["details"]["finished"]) == (504, 0)


async def test_a_deadline_cuts_a_round_of_blocks_in_its_middle(serve: Serve) -> None:
    # Six readings of 20 responses are 18 samples; the first wave is four of them.
    async with serve(Slow(14)) as client:
        answer = await post(client, responses=LONG, k=6, stop={"rule": "precision", "se": 1e-9}, deadline_s=0.3)
    assert (answer["stop_reason"], answer["k_used"], answer["usage"]["samples"]) == ("deadline", 4, 14)
    assert set(answer["votes"]) == {4, 5}


async def test_an_audit_outlives_the_deadline_of_its_request(serve: Serve) -> None:
    class Judge(favours("B.")):  # type: ignore[misc]
        async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
            self.delay_s = 0.3 if urgency is Urgency.AUDIT else 0.0
            return await super()._write(prepared, seed, urgency)

    async with serve(Judge(), "stopping.audit_share=1") as client:
        await post(client, stop={"rule": "decided"}, deadline_s=0.2)
        assert 'grm_audits_total{outcome="agree"} 1.0' in await audits(client)


async def test_a_first_wave_that_was_cut_teaches_nothing(serve: Serve, tmp_path: Path) -> None:
    where = tmp_path / "learnt.json"
    async with serve(Slow(3), f"stopping.priors={where}") as client:
        await post(client, stop={"rule": "decided"}, deadline_s=0.1)
    assert json.loads(where.read_text())["priors"] == []


LONG = [f"Response number {i}." for i in range(20)]


async def test_a_long_list_is_judged_in_blocks(serve: Serve) -> None:
    sampler = favours("number 7.")()
    async with serve(sampler) as client:
        answer = await post(client, responses=LONG, k=4, return_samples=True)
    assert (answer["best"], answer["list_size"], answer["k_used"]) == (7, 8, 4)
    assert answer["usage"]["samples"] == 12
    assert answer["votes"] == [4] * 20
    for sample in answer["samples"]:
        assert len(sample["order"]) in (6, 7)
        assert [i for i, score in enumerate(sample["scores"]) if score is not None] == sorted(sample["order"])
    assert len(answer["rewards"]) == len(answer["se"]) == len(answer["p_best"]) == 20
    assert sum(answer["p_best"]) == pytest.approx(1)


async def test_a_lenient_sample_does_not_favour_its_block(serve: Serve) -> None:
    class Moody(FakeSampler):
        """Response i is worth i / 4 + 2; each sample adds what it feels like."""

        async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
            numbers = re.findall(r"Response number (\d+)\.", prepared.script.prompt)
            points = [2 + int(number) // 4 + seed % 4 for number in numbers]
            self.outcomes.append(", ".join(map(str, points)) + "}")
            return await super()._write(prepared, seed, urgency)

    async with serve(Moody()) as client:
        answer = await post(client, responses=LONG, k=4)
    assert all(answer["rewards"][i] == pytest.approx(answer["rewards"][0] + i // 4, abs=1e-4) for i in range(20))


async def test_blocks_that_cannot_fit_are_found_before_anything_is_generated(serve: Serve) -> None:
    # Few bytes and many tokens against many bytes and few tokens; a token is a word here.
    responses = ["w " * 250] * 3 + ["long" * 400] * 9
    sampler = FakeSampler(max_model_len=1000)
    async with serve(sampler) as client:
        for seed in range(6):
            answer = await post(client, responses=responses, k=2, seed=seed, max_critique_tokens=100)
            assert answer["votes"] == [2] * 12


async def test_a_list_that_does_not_fit_the_context_is_judged_in_blocks(serve: Serve) -> None:
    sampler = FakeSampler(max_model_len=1000)
    async with serve(sampler) as client:
        answer = await post(client, responses=["word " * 200] * 6, k=2, max_critique_tokens=100)
        too_long = await client.post("/v1/rewards", json=PAIR | {"responses": ["word " * 900, "B.", "C."]})
        strict = await client.post(
            "/v1/rewards", json=PAIR | {"responses": ["word " * 200] * 6, "stop": {"rule": "strict"}}
        )
    assert answer["list_size"] < 6
    assert answer["votes"] == [2] * 6
    assert all(len(script.prompt.split()) < 900 for script, *_ in sampler.calls)
    assert (too_long.status_code, too_long.json()["error"]["code"]) == (400, "prompt_too_long")
    assert strict.json()["error"]["code"] == "prompt_too_long"


async def test_losers_are_dropped_and_keep_their_reward(serve: Serve) -> None:
    class Judge(FakeSampler):
        async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
            shown = prepared.script.prompt.split("[The Begin of Response ")[1:]
            close = seed % 2
            points = ["9" if "0." in t else str(8 + close) if "1." in t else "2" for t in shown]
            self.outcomes.append(", ".join(points) + "}")
            return await super()._write(prepared, seed, urgency)

    sampler = Judge()
    async with serve(sampler) as client:
        stop = {"rule": "decided", "gamma": 0.01}
        answer = await post(client, responses=LONG[:8], k=32, stop=stop, return_samples=True)
    shown = Counter(len(sample["order"]) for sample in answer["samples"])
    assert shown[2] > 0
    assert answer["votes"][2] == shown[8] < answer["votes"][0] == len(answer["samples"])
    assert answer["se"][2] > answer["se"][0]
    assert answer["best"] == 0
    assert answer["rewards"][2] < 4


async def events_of(client: httpx.AsyncClient, **changes: Any) -> list[tuple[str, Any]]:
    headers = {"Accept": "text/event-stream"}
    async with client.stream("POST", "/v1/rewards", json=PAIR | changes, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        text = (await response.aread()).decode()
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


async def test_a_stream_ends_with_the_plain_answer(serve: Serve, tmp_path: Path) -> None:
    async with serve(FakeSampler(), f"stopping.priors={tmp_path / 'one.json'}") as client:
        events = await events_of(client, stop={"rule": "precision", "se": 1e-9}, return_samples=True)
    async with serve(FakeSampler(), f"stopping.priors={tmp_path / 'other.json'}") as client:
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


async def test_a_line_separator_in_a_critique_does_not_cut_an_event(serve: Serve) -> None:
    critique = "one\u2028two\u2029three\x85four"
    samples = [Sample({"principles": "", "critique": critique, "scores": "5, 6}"}, finished_s=1.0)] * 4
    async with serve(FakeSampler(samples)) as client:
        events = await events_of(client, k=4, return_samples=True)
    assert [data["critique"] for name, data in events if name == "sample"] == [critique] * 4


async def test_what_can_be_refused_is_refused_before_the_stream(serve: Serve) -> None:
    async with serve(FakeSampler(max_model_len=300)) as client:
        for change in ({"k": 0}, {"k": 10**6}, {"responses": ["word " * 600, "B."]}):
            response = await client.post("/v1/rewards", json=PAIR | change, headers={"Accept": "text/event-stream"})
            assert response.status_code in (400, 422)
            assert "error" in response.json()


async def test_an_error_that_nobody_foresaw_is_an_event_without_its_message(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(FakeSampler):
        async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
            raise RuntimeError("the prompt was SECRET")

    async with serve(Broken()) as client:
        events = await events_of(client)
    assert [name for name, _ in events] == ["started", "error"]
    assert events[-1][1]["error"]["code"] == "internal_error"
    assert "SECRET" not in json.dumps(events) + caplog.text


async def test_a_caller_that_leaves_while_a_write_is_blocked(tmp_path: Path) -> None:
    sampler = Slow(3, ["5, 6}"] * 16)
    app = create_app(load_settings({}, [f"cache_dir={tmp_path}", "stopping.rule=fixed"]), sampler)
    hang_up, blocked = asyncio.Event(), asyncio.Event()
    messages = [{"type": "http.request", "body": json.dumps(PAIR).encode(), "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await hang_up.wait()
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
    async with app.router.lifespan_context(app):
        call = asyncio.ensure_future(app(scope, receive, send))
        await asyncio.wait_for(blocked.wait(), 2)
        hang_up.set()
        await asyncio.wait_for(call, 2)
        assert sampler.running == 0


async def test_an_error_in_the_middle_of_a_stream_is_its_last_event(serve: Serve) -> None:
    class Dying(FakeSampler):
        async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
            self.dead = EngineDead("died")
            return await super()._write(prepared, seed, urgency)

    async with serve(Dying()) as client:
        events = await events_of(client)
        metrics = (await client.get("/metrics")).text
    assert [name for name, _ in events] == ["started", "error"]
    assert events[-1][1]["error"]["code"] == "engine_dead"
    assert 'grm_requests_total{code="engine_dead"} 1.0' in metrics
    assert "grm_requests_in_flight 0.0" in metrics


async def test_a_silent_stream_has_heartbeats(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "HEARTBEAT_S", 0.01)
    async with serve(FakeSampler(delay_s=0.1)) as client:
        response = await client.post("/v1/rewards", json=PAIR, headers={"Accept": "text/event-stream"})
    assert response.text.count(": ping\n\n") >= 3
    assert "event: rewards" in response.text


async def test_an_idle_engine_begins_the_next_wave_early_and_aborts_it(serve: Serve) -> None:
    class Judge(favours("B.")):  # type: ignore[misc]
        async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
            self.delay_s = 60 if urgency is Urgency.SPECULATIVE else 0.02
            return await super()._write(prepared, seed, urgency)

    sampler = Judge()
    async with serve(sampler, "stopping.speculate_below=8") as client:
        answer = await post(client, stop={"rule": "decided"}, return_samples=True)
        metrics = (await client.get("/metrics")).text
    assert (answer["stop_reason"], answer["k_used"]) == ("decided", 4)
    assert Counter(sampler.urgencies) == {Urgency.NEW: 4, Urgency.SPECULATIVE: 4}
    assert sampler.running == 0
    assert len(answer["samples"]) == 4
    assert sampler.aborted == 4
    assert 'grm_samples_total{outcome="aborted"} 4.0' in metrics


async def test_what_was_begun_early_is_the_wave_that_comes(serve: Serve) -> None:
    async with serve(FakeSampler(delay_s=0.001), "stopping.speculate_below=6") as client:
        early = await post(client, stop={"rule": "precision", "se": 1e-9}, return_samples=True)
    async with serve(FakeSampler()) as client:
        plain = await post(client, stop={"rule": "precision", "se": 1e-9}, return_samples=True)
    assert early["rewards"] == plain["rewards"]
    assert [s["index"] for s in early["samples"]] == list(range(16))


async def test_a_busy_engine_begins_nothing_early(serve: Serve) -> None:
    sampler = favours("B.")(delay_s=0.02)
    async with serve(sampler, "stopping.speculate_below=1") as client:
        await post(client, stop={"rule": "decided"})
    assert sampler.started == 4


async def audits(client: httpx.AsyncClient) -> str:
    for _ in range(200):
        text = (await client.get("/metrics")).text
        if "grm_audits_total{" in text:
            return text
        await asyncio.sleep(0.01)
    raise AssertionError("no audit ended")


async def test_an_audit_draws_the_rest_behind_the_answer(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="grm_server")
    sampler = favours("B.")(delay_s=0.005)
    async with serve(sampler, "stopping.audit_share=1") as client:
        answer = await post(client, stop={"rule": "decided"})
        assert (answer["stop_reason"], answer["k_used"]) == ("decided", 4)
        text = await audits(client)
    assert 'grm_audits_total{outcome="agree"} 1.0' in text
    assert sampler.finished == 16
    assert Counter(sampler.urgencies)[Urgency.AUDIT] == 12
    assert "audit: decided at k=4" in caplog.text
    assert "the best response is the same" in caplog.text


async def test_an_audit_that_disagrees_is_counted(serve: Serve) -> None:
    class Turncoat(FakeSampler):
        """Clear for four samples, and clearly the other way from then on."""

        async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
            shown = prepared.script.prompt.split("[The Begin of Response ")[1:]
            best = "B." if self.started < 4 else "A."
            self.outcomes.append(", ".join("9" if best in text else "3" for text in shown) + "}")
            return await super()._write(prepared, seed, urgency)

    async with serve(Turncoat(), "stopping.audit_share=1") as client:
        assert (await post(client, stop={"rule": "decided"}))["best"] == 1
        assert 'grm_audits_total{outcome="disagree"} 1.0' in await audits(client)


async def test_an_audit_of_a_request_that_dropped_responses_draws_whole_lists(serve: Serve) -> None:
    class Judge(FakeSampler):
        """Two that are close, six that are far behind."""

        async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
            shown = prepared.script.prompt.split("[The Begin of Response ")[1:]
            points = [str(8 + seed % 2) if "0." in t else str(9 - seed % 2) if "1." in t else "2" for t in shown]
            self.outcomes.append(", ".join(points) + "}")
            return await super()._write(prepared, seed, urgency)

    sampler = Judge()
    async with serve(sampler, "stopping.audit_share=1") as client:
        answer = await post(client, responses=LONG[:8], k=24, stop={"rule": "decided", "gamma": 0.02})
        await audits(client)
    lists = Counter(script.prompt.count("[The Begin of Response ") for script, seeds, _ in sampler.calls for _ in seeds)
    assert lists[2] > 0
    # Whether it was stopped or ran to k: 24 whole lists in the end.
    assert lists[8] == 24
    assert answer["votes"][0] > answer["votes"][7]
    assert set(lists) == {2, 8}


async def test_an_audit_of_a_ranking_compares_rankings(serve: Serve) -> None:
    class Turncoat(FakeSampler):
        """The best stays the best; the other two change places after the first wave."""

        async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
            shown = prepared.script.prompt.split("[The Begin of Response ")[1:]
            low = {"B.": "5", "C.": "2"} if self.started < 6 else {"B.": "2", "C.": "5"}
            points = ["9" if "A." in t else low["B."] if "B." in t else low["C."] for t in shown]
            self.outcomes.append(", ".join(points) + "}")
            return await super()._write(prepared, seed, urgency)

    async with serve(Turncoat(), "stopping.audit_share=1") as client:
        stop = {"rule": "decided", "target": "ranking", "gamma": 0.2}
        answer = await post(client, responses=["A.", "B.", "C."], stop=stop, k=24)
        assert answer["ranking"] == [0, 1, 2]
        assert 'grm_audits_total{outcome="disagree"} 1.0' in await audits(client)


async def test_audits_end_with_the_server_and_failures_are_counted(serve: Serve) -> None:
    sampler = Slow(4, ["9, 3}", "3, 9}"] * 2)
    async with serve(sampler, "stopping.audit_share=1") as client:
        # Equal scores at each position: the order decides, so say it by position and let the design balance.
        await post(client, stop={"rule": "decided", "gamma": 0.99})
        await asyncio.sleep(0.02)
        assert sampler.running == 12
    assert sampler.running == 0


async def test_no_more_than_a_few_audits_at_once(serve: Serve) -> None:
    class Stuck(FakeSampler):
        """Audits never end."""

        async def _write(self, prepared: Any, seed: int, urgency: Urgency) -> Any:
            self.delay_s = 60.0 if urgency is Urgency.AUDIT else 0.0
            shown = prepared.script.prompt.split("[The Begin of Response ")[1:]
            self.outcomes.append(", ".join("9" if "B." in text else "3" for text in shown) + "}")
            return await super()._write(prepared, seed, urgency)

    async with serve(Stuck(), "stopping.audit_share=1") as client:
        for seed in range(6):
            await post(client, stop={"rule": "decided"}, seed=seed)
        text = (await client.get("/metrics")).text
    assert 'grm_audits_total{outcome="skipped"} 2.0' in text


async def test_a_share_of_requests_is_audited(serve: Serve) -> None:
    async with serve(favours("B.")(), "stopping.audit_share=0.3") as client:
        for number in range(60):
            await post(client, query=f"Why {number}?", stop={"rule": "decided"}, k=8)
            await asyncio.sleep(0.002)
        await audits(client)
        found = re.findall(
            r'grm_audits_total\{outcome="(?:agree|skipped)"\} (\S+)', (await client.get("/metrics")).text
        )
    # 18 are expected; the hash decides, so the number is random between servers.
    assert 4 <= sum(map(float, found)) <= 36


async def test_what_traffic_teaches_survives_a_restart(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "learnt.json"
    where = f"stopping.priors={path}"
    async with serve(FakeSampler(), where) as client:
        for seed in range(30):
            await post(client, seed=seed, k=4, task="maths")
    first = json.loads(path.read_text())["priors"]
    assert [(row["model"], row["task"], row["aggregate"]) for row in first] == [("fake", "maths", "mean")]
    assert first[0]["weight"] == 50
    # A judge of random scores has a large variance and no true gaps.
    assert first[0]["pair_variance"] > 6
    assert first[0]["gap_variance"] < 3
    async with serve(FakeSampler(), where) as client:
        await post(client, k=4, task="maths")
        await post(client, k=4, aggregate="vote")
    second = json.loads(path.read_text())["priors"]
    assert second[0]["weight"] == 51
    assert len(second) == 2


@pytest.mark.parametrize("content", ["", "{", '{"priors": [{"model": 1}]}'])
async def test_priors_that_cannot_be_read_are_set_aside(serve: Serve, tmp_path: Path, content: str) -> None:
    path = tmp_path / "learnt.json"
    path.write_text(content)
    async with serve(FakeSampler(), f"stopping.priors={path}") as client:
        await post(client, k=4)
    assert path.with_suffix(".bad").read_text() == content
    assert json.loads(path.read_text())["priors"]


async def test_a_disk_that_cannot_be_written_fails_no_request(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with serve(FakeSampler(), f"stopping.priors={tmp_path / 'file' / 'priors.json'}") as client:
        assert (await post(client, k=4))["k_used"] == 4


def test_callers_cannot_fill_the_memory_with_tags_nor_keep_others_out(tmp_path: Path) -> None:
    store = priors.PriorStore(tmp_path / "priors.json")
    mine = priors.Key("fake", "mine", "mean")
    for number in range(400):
        store.observe(priors.Key("fake", f"tag-{number}", "mean"), np.zeros((4, 2)))
        store.observe(mine, np.zeros((4, 2)))
    store.save()
    rows = json.loads((tmp_path / "priors.json").read_text())["priors"]
    assert len(rows) == priors.MAX_TASKS
    assert {row["task"]: row["weight"] for row in rows}["mine"] == 420


def test_a_new_tag_starts_from_untagged_traffic_and_learns_as_fast_as_a_new_server(tmp_path: Path) -> None:
    store = priors.PriorStore(tmp_path / "priors.json")
    rng = np.random.default_rng(0)
    untagged = priors.Key("fake", "", "mean")
    for _ in range(3000):
        store.observe(untagged, rng.normal(0, 0.5, (4, 2)))
    tagged = priors.Key("fake", "safety", "mean")
    assert store.prior(tagged) == store.prior(untagged)
    for _ in range(60):
        store.observe(tagged, rng.normal(0, 2.0, (4, 2)))
    assert store.prior(tagged).pair_variance > 4


async def test_each_aggregate_learns_for_itself(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "learnt.json"
    async with serve(FakeSampler(), f"stopping.priors={path}") as client:
        for seed in range(20):
            await post(client, k=4, seed=seed)
            await post(client, k=4, seed=seed, aggregate="vote")
    learnt = {row["aggregate"]: row["pair_variance"] for row in json.loads(path.read_text())["priors"]}
    assert learnt["vote"] < 1 < learnt["mean"]


async def test_the_first_wave_teaches_whatever_comes_after_it(serve: Serve, tmp_path: Path) -> None:
    """Stopped or not, winsorised or not: later samples must not change what a request teaches."""
    taught = []
    for name, rest in (("one", ["5, 5}"] * 12), ("other", ["9, 1}"] * 12)):
        path = tmp_path / f"{name}.json"
        sampler = FakeSampler(["9, 2}", "2, 9}", "9, 2}", "2, 9}", *rest])
        async with serve(sampler, f"stopping.priors={path}") as client:
            await post(client, stop={"rule": "precision", "se": 1e-9}, aggregate="winsorised")
        taught.append(json.loads(path.read_text()))
    assert taught[0] == taught[1]


async def test_a_calibration_for_the_model_gives_chances_against_labels(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    fitted = {"tau": 1.5, "labels": 300, "k_used": 4, "accuracy": 0.7, "ece_judge": 0.2, "ece_label": 0.02}
    for model, known in (("fake", True), ("another", False)):
        path.write_text(json.dumps({"model": model, **fitted}))
        async with serve(favours("B.")(), f"stopping.calibration={path}") as client:
            answer = await post(client, k=4)
        if known:
            assert 0.5 < answer["p_best_label"][1] < answer["p_best"][1]
            assert sum(answer["p_best_label"]) == pytest.approx(1)
        else:
            assert answer["p_best_label"] is None


@pytest.mark.parametrize("content", [None, "{}"])
def test_a_calibration_that_cannot_be_read_stops_the_start(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "calibration.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=r"stopping\.calibration"):
        create_app(load_settings({}, [f"stopping.calibration={path}"]))


async def test_failed_samples_in_a_wave_do_not_vote_and_do_not_stop_it(serve: Serve) -> None:
    sampler = FakeSampler(["no"] * 4 + ["9, 3}", "3, 9}"] * 8)
    async with serve(sampler) as client:
        answer = await post(client, stop={"rule": "decided", "gamma": 0.01})
    assert answer["failures"] == {"no_scores": 4}
    assert answer["k_used"] > 4
    assert answer["k_valid"] == answer["k_used"] - 4
