"""Items that hold half a surrogate pair, NaN, null or a wrong kind: each costs its own reward, never the call."""

import asyncio
import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from grm_server.engine.fake import FakeEngine
from tests.integration.conftest import AppClient, Serve
from tests.integration.counting import counters
from tests.integration.nemo import rollout
from tests.integration.trainers import FAST

HALF = "a\udc97"
ODD: list[Any] = [HALF, None, 3, math.nan, {"x": HALF}, [HALF]]
TEXT = st.text(st.characters(exclude_categories=()), max_size=8)
VALUES = st.sampled_from([*ODD, "b", [{"role": "user", "content": HALF}]]) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CHAT = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n"


async def post(client: AppClient, path: str, body: Any) -> Any:
    """As Python's encoder writes it: NaN as a literal, surrogates as escapes. httpx would refuse both."""
    content, headers = json.dumps(body), {"content-type": "application/json"}
    answer = await client.post(path, content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize("label", [HALF, {"x": HALF}, [HALF]])
async def test_a_label_that_no_text_can_hold_costs_its_own_reward(serve: Serve, label: Any) -> None:
    engine = FakeEngine(["7}"] * 2)
    body = {"query": ["p a", "p b"], "prompts": ["p ", "p "], "labels": [label, "x"]}
    async with serve(engine, *FAST) as client:
        answer = await post(client, "/get_reward", body)
        seen = await counters(client)
        ignored = await post(client, "/get_reward?label=ignore", body)
    assert answer["rewards"] == [5.5, 7.0]
    assert answer["extra_logs"]["grm_failed"] == [1.0, 0.0]
    assert seen['grm_failed_rewards_total{answer="neutral",trainer="openrlhf"}'] == 1
    assert ignored["extra_logs"]["grm_failed"] == [0.0, 0.0]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("name", ["query", "prompts"])
async def test_an_odd_text_costs_openrlhf_its_own_reward(serve: Serve, name: str, odd: Any) -> None:
    body = {"query": ["p a", "p b"], "prompts": ["p ", "p "], "labels": ["", ""]}
    body[name] = [odd, body[name][1]]
    async with serve(FakeEngine(), *FAST) as client:
        answer = await post(client, "/get_reward", body)
    assert answer["extra_logs"]["grm_failed"] == [1.0, 0.0]
    assert all(math.isfinite(reward) for reward in answer["rewards"])


async def test_failure_error_still_refuses_an_odd_item_and_names_it(serve: Serve) -> None:
    async with serve(FakeEngine(), "trainers.openrlhf.failure=error") as client:
        answer = await client.post(
            "/get_reward", content='{"query": ["a\\udc97 SECRET"]}', headers={"content-type": "application/json"}
        )
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "query")
    assert "SECRET" not in answer.text


@pytest.mark.parametrize("label", [math.nan, {"answer": math.nan, "unit": "m"}])
async def test_nan_in_a_label_is_a_missing_value(serve: Serve, label: Any) -> None:
    engine = FakeEngine()
    async with serve(engine, *FAST) as client:
        answer = await post(client, "/get_reward", {"query": ["p a"], "prompts": ["p "], "labels": [label]})
    assert answer["extra_logs"]["grm_failed"] == [0.0]
    assert "NaN" not in engine.calls[0][0].prompt
    assert ('"unit": "m"' in engine.calls[0][0].prompt) == isinstance(label, dict)


@pytest.mark.parametrize("odd", [*ODD, []])
@pytest.mark.parametrize("name", ["prompt", "response"])
async def test_slime_gets_a_number_for_an_odd_sample(serve: Serve, name: str, odd: Any) -> None:
    body = {"prompt": CHAT, "response": "r", "label": None, name: odd}
    async with serve(FakeEngine(), *FAST) as client:
        assert await post(client, "/reward", body) == 5.5
        answer = await post(client, "/reward?shape=object", body)
    assert (answer["reward"], answer["judgement"]) == (5.5, None)


@pytest.mark.parametrize("odd", ODD)
async def test_llama_factory_gets_a_score_for_an_odd_text(serve: Serve, odd: Any) -> None:
    async with serve(FakeEngine(["7}"] * 2), *FAST) as client:
        answer = await post(client, "/v1/score/evaluation", {"model": "m", "messages": [odd, CHAT + "r"]})
    assert answer["scores"] == [5.5, 7.0]


@pytest.mark.parametrize("odd", ODD)
async def test_an_odd_rollout_is_masked_and_echoed(serve: Serve, odd: Any) -> None:
    wrong_input = rollout("A") | {"responses_create_params": {"input": odd}}
    wrong_output = rollout("A") | {"response": {"output": odd}}
    async with serve(FakeEngine(), *FAST) as client:
        answers = [await post(client, "/verify", body) for body in (wrong_input, wrong_output)]
    for answer in answers:
        assert (answer["reward"], answer["mask_sample"]) == (0.0, True)
        assert answer["dataset"] == "hs3"
    echo = json.dumps(odd).replace("\\udc97", "\ufffd").replace("NaN", "null")
    assert answers[1]["response"] == {"output": json.loads(echo)}


async def test_odd_values_in_other_fields_of_a_rollout_cost_nothing(serve: Serve) -> None:
    body = rollout("A", note=HALF, weight=math.nan, **{HALF: 1})
    async with serve(FakeEngine(["7}"] * 2), *FAST) as client:
        answer = await post(client, "/verify", body)
    assert answer["reward"] == 7.0
    assert (answer["note"], answer["weight"], answer["a\ufffd"]) == ("a\ufffd", None, 1)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(odd=VALUES, other=VALUES, label=VALUES)
def test_every_route_with_a_promise_keeps_it(serve: Serve, odd: Any, other: Any, label: Any) -> None:
    """25 cases, each of which posts to four routes."""

    async def all_routes() -> None:
        async with serve(FakeEngine(), *FAST) as client:
            body = {"query": ["p a", odd], "prompts": ["p ", other], "labels": ["", label]}
            answer = await post(client, "/get_reward", body)
            assert answer["extra_logs"]["grm_failed"][0] == 0.0
            assert all(math.isfinite(reward) for reward in answer["rewards"])
            assert len(answer["rewards"]) == 2
            number = await post(client, "/reward", {"prompt": odd, "response": other, "label": label})
            assert math.isfinite(number)
            scores = (await post(client, "/v1/score/evaluation", {"messages": [odd, "b"]}))["scores"]
            assert len(scores) == 2
            fields = {"responses_create_params": {"input": odd}, "response": {"output": other}, "principle": label}
            verified = await post(client, "/verify", rollout("A", note=label) | fields)
            assert verified["reward"] is not None

    asyncio.run(all_routes())
    event("four routes called")
