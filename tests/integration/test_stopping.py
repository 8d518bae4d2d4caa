"""When a request stops, and what its answer reports, over HTTP with a fake engine."""

import json
from collections import Counter
from typing import Any

import pytest

from grm_server.app import create_app
from grm_server.engine.fake import FakeCall, FakeEngine
from grm_server.engine.protocol import SchedulingClass
from grm_server.settings import SettingsError, load_settings
from tests.integration.conftest import Serve
from tests.integration.judging import LONG, PAIR, favours, post


async def test_a_clear_request_stops_early_and_reports_its_certainty(serve: Serve) -> None:
    engine = FakeEngine(score=favours("B."))
    async with serve(engine) as client:
        answer = await post(client, stop={"rule": "decided", "gamma": 0.05})
    assert (answer["stop_reason"], answer["k"], answer["k_used"], answer["k_valid"]) == ("decided", 16, 4, 4)
    assert answer["best"] == 1
    assert 0 < answer["risk_full_k"] <= 0.05
    assert answer["p_best"][1] > 0.95
    assert answer["p_greater"][1][0] == pytest.approx(answer["p_best"][1], abs=1e-3)
    # The posterior means lie between a tie and the means of the four samples.
    assert 3 < answer["rewards"][0] < answer["rewards"][1] < 9
    assert answer["vote_sums"] == [12, 36]
    assert answer["usage"]["samples"] == engine.started == 4
    assert answer["position_effect"] == [0.0, 0.0]
    assert answer["p_best_label"] is None


async def test_a_close_request_goes_on_to_k(serve: Serve) -> None:
    engine = FakeEngine(["5, 5}"] * 16)
    async with serve(engine) as client:
        answer = await post(client, stop={"rule": "decided"})
    assert (answer["stop_reason"], answer["k_used"], answer["risk_full_k"]) == ("full_k", 16, 0)
    assert answer["rewards"] == [5, 5]
    assert answer["ties"] == [[0, 1]]


async def test_sampling_in_waves_uses_the_same_draws_as_sampling_all_at_once(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
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
    engine = FakeEngine(["5, 5}"] * 16)
    async with serve(engine) as client:
        await post(client, stop={"rule": "decided"})
    assert engine.schedulings == [SchedulingClass.NEW] * 4 + [SchedulingClass.CONTINUATION] * 12


@pytest.mark.parametrize(
    ("stop", "reason"), [({"rule": "precision", "se": 0.9}, "precision"), ({"rule": "strict", "delta": 0.1}, "strict")]
)
async def test_other_rules(serve: Serve, stop: dict[str, Any], reason: str) -> None:
    async with serve(FakeEngine(score=favours("A."))) as client:
        answer = await post(client, stop=stop)
    assert answer["stop_reason"] == reason
    assert answer["k_used"] < 16
    if reason == "precision":
        assert max(answer["se"]) <= 0.9
        assert answer["rewards"] == [9, 3]


async def test_the_servers_own_rule_and_levels(serve: Serve) -> None:
    async with serve(FakeEngine(score=favours("A.")), "stopping.rule=decided", "stopping.gamma=1e-9") as client:
        default = await post(client)
        asked = await post(client, stop={"rule": "decided", "gamma": 0.1})
        inherited = await post(client, stop={"rule": "decided", "target": "ranking"})
    assert default["risk_full_k"] <= 1e-9 or default["stop_reason"] == "full_k"
    assert asked["k_used"] == 4
    assert inherited["k_used"] == default["k_used"] > 4


@pytest.mark.parametrize("rule", ["strict", "decided", "precision"])
async def test_the_rule_of_the_settings(serve: Serve, rule: str) -> None:
    async with serve(
        FakeEngine(score=favours("A.")), f"stopping.rule={rule}", "stopping.se=1", "stopping.delta=0.3"
    ) as client:
        assert (await post(client))["stop_reason"] == rule


async def test_a_single_response_gets_all_k_samples(serve: Serve) -> None:
    async with serve(FakeEngine(["7}"] * 8)) as client:
        answer = await post(client, responses=["A."], k=8, stop={"rule": "decided"})
    assert (answer["stop_reason"], answer["k_used"], answer["rewards"]) == ("full_k", 8, [7])
    assert answer["p_best"] == [1]
    assert answer["position_effect"] is None


async def test_no_request_stops_before_min_votes(serve: Serve) -> None:
    async with serve(FakeEngine(score=favours("B."))) as client:
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
async def test_server_defaults_that_do_not_fit_a_request_are_replaced(
    serve: Serve, settings: tuple[str, ...], change: dict[str, Any]
) -> None:
    async with serve(FakeEngine(), *settings) as client:
        answer = await post(client, **change)
    assert all(reward >= 1 for reward in answer["rewards"])
    assert len(answer["rewards"]) == len(change["responses"])


def test_incompatible_defaults_prevent_the_start() -> None:
    with pytest.raises(SettingsError, match="winsorised"):
        create_app(load_settings({}, ["stopping.rule=strict", "judge.aggregate=winsorised"]))


async def test_a_request_over_max_samples_is_refused(serve: Serve) -> None:
    async with serve(FakeEngine(), "limits.max_samples=30") as client:
        response = await client.post("/v1/rewards", json=PAIR | {"responses": LONG, "k": 16})
    error = response.json()["error"]
    assert (response.status_code, error["param"], error["details"]) == (422, "k", {"samples": 48, "limit": 30})


@pytest.mark.parametrize("field", ["k", "min_votes", "max_critique_tokens", "list_size"])
async def test_huge_numbers_are_refused(serve: Serve, field: str) -> None:
    content = json.dumps(PAIR)[:-1] + f', "{field}": 1{"0" * 400}}}'
    async with serve(FakeEngine()) as client:
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
async def test_an_invalid_value_is_refused_and_its_field_named(
    serve: Serve, change: dict[str, Any], param: str
) -> None:
    async with serve(FakeEngine()) as client:
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
async def test_incompatible_choices_are_refused(serve: Serve, change: dict[str, Any], param: str) -> None:
    async with serve(FakeEngine()) as client:
        response = await client.post("/v1/rewards", json=PAIR | change)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "invalid_request", param)


async def test_a_deadline_over_the_servers_maximum_is_refused(serve: Serve) -> None:
    async with serve(FakeEngine(), "limits.max_deadline_s=5") as client:
        response = await client.post("/v1/rewards", json=PAIR | {"deadline_s": 6})
    assert (response.status_code, response.json()["error"]["param"]) == (422, "deadline_s")


@pytest.mark.parametrize(
    ("aggregate", "rewards"),
    [("mean", [3.0, 9.0]), ("winsorised", [3.0, 9.0]), ("vote", [0.0, 1.0]), ("borda", [0.0, 1.0])],
)
async def test_aggregates(serve: Serve, aggregate: str, rewards: list[float]) -> None:
    async with serve(FakeEngine(score=favours("B."))) as client:
        answer = await post(client, aggregate=aggregate, k=4)
    assert answer["rewards"] == rewards
    assert answer["vote_sums"] == [12, 36]


async def test_an_idle_engine_starts_the_next_wave_speculatively_and_aborts_it_if_unneeded(serve: Serve) -> None:
    def slow_if_early(call: FakeCall) -> float:
        return 60.0 if call.scheduling is SchedulingClass.SPECULATIVE else 0.02

    engine = FakeEngine(score=favours("B."), delay_s=slow_if_early)
    async with serve(engine, "stopping.speculate_below=8") as client:
        answer = await post(client, stop={"rule": "decided"}, return_samples=True)
        metrics = (await client.get("/metrics")).text
    assert (answer["stop_reason"], answer["k_used"]) == ("decided", 4)
    assert Counter(engine.schedulings) == {SchedulingClass.NEW: 4, SchedulingClass.SPECULATIVE: 4}
    assert engine.running == 0
    assert len(answer["samples"]) == 4
    assert engine.aborted == 4
    assert 'grm_samples_total{outcome="aborted"} 4.0' in metrics


async def test_speculative_samples_become_the_next_wave(serve: Serve) -> None:
    async with serve(FakeEngine(delay_s=0.001), "stopping.speculate_below=6") as client:
        early = await post(client, stop={"rule": "precision", "se": 1e-9}, return_samples=True)
    async with serve(FakeEngine()) as client:
        plain = await post(client, stop={"rule": "precision", "se": 1e-9}, return_samples=True)
    assert early["rewards"] == plain["rewards"]
    assert [s["index"] for s in early["samples"]] == list(range(16))


async def test_a_busy_engine_starts_no_speculative_samples(serve: Serve) -> None:
    engine = FakeEngine(score=favours("B."), delay_s=0.02)
    async with serve(engine, "stopping.speculate_below=1") as client:
        await post(client, stop={"rule": "decided"})
    assert engine.started == 4


async def test_failed_samples_do_not_vote_and_do_not_end_the_request(serve: Serve) -> None:
    engine = FakeEngine(["no"] * 4 + ["9, 3}", "3, 9}"] * 8)
    async with serve(engine) as client:
        answer = await post(client, stop={"rule": "decided", "gamma": 0.01})
    assert answer["failures"] == {"no_scores": 4}
    assert answer["k_used"] > 4
    assert answer["k_valid"] == answer["k_used"] - 4
