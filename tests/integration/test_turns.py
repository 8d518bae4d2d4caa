"""What the judge is shown of a turn is what the turn says, on every route and for every function of the client."""

import json
from pathlib import Path
from typing import Any

import pytest

from grm_client.trainers.groups import as_query, as_text
from grm_server.engine.fake import FakeEngine
from tests.integration.conftest import Serve
from tests.integration.nemo import rollout
from tests.integration.trainers import FAST, post

USER = {"role": "user", "content": "Weather in Paris?"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
    ],
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "18 C"}
REFUSAL = {"role": "assistant", "content": None, "refusal": "I cannot help with that."}
SHOWN_CALL = '[Tool call: get_weather]\n{"city":"Paris"}'
CASES = json.loads((Path(__file__).parents[1] / "turns" / "cases.json").read_text())["cases"]


@pytest.mark.parametrize(
    ("last", "shown"), [(CALL, SHOWN_CALL), (REFUSAL, "I cannot help with that."), (USER | {"role": "assistant"}, "W")]
)
async def test_the_last_turn_of_a_chat_is_judged_as_what_it_says(serve: Serve, last: Any, shown: str) -> None:
    engine = FakeEngine()
    async with serve(engine, *FAST) as client:
        await post(client, {"messages": [USER, last]}, "/v1/chat/completions")
    assert f"[The Begin of Response 1]\n{shown}" in engine.calls[0][0].prompt


@pytest.mark.parametrize("route", ["chat", "slime", "rewards", "client"])
async def test_tool_calls_and_results_are_turns_of_the_conversation(serve: Serve, route: str) -> None:
    chat: list[dict[str, Any]] = [USER | {"role": "developer"}, USER, CALL, RESULT]
    bodies: dict[str, tuple[str, Any]] = {
        "chat": ("/v1/chat/completions", {"messages": [*chat, {"role": "assistant", "content": "Mild."}]}),
        "slime": ("/reward", {"prompt": chat, "response": "Mild."}),
        "rewards": ("/v1/rewards", {"query": chat, "responses": ["Mild."]}),
        "client": ("/v1/rewards", {"query": as_query(chat), "responses": [as_text([{"content": "Mild."}])]}),
    }
    engine = FakeEngine()
    async with serve(engine, *FAST) as client:
        await post(client, bodies[route][1], bodies[route][0])
    prompt = engine.calls[0][0].prompt
    assert "[The Begin of System Turn]\nWeather in Paris?\n" in prompt
    assert f"[The Begin of Assistant Turn]\n{SHOWN_CALL}\n[The End of Assistant Turn]" in prompt
    assert "[The Begin of Tool Turn]\n[Tool result: get_weather]\n18 C\n[The End of Tool Turn]" in prompt


async def test_the_output_of_an_agent_shows_its_calls(serve: Serve) -> None:
    body = rollout("Mild.")
    body["response"]["output"][1:1] = [
        {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": '{"city":"Paris"}'},
        {"type": "function_call_output", "call_id": "c", "output": "18 C"},
    ]
    engine = FakeEngine()
    async with serve(engine, *FAST) as client:
        await post(client, body, "/verify")
    assert f"{SHOWN_CALL}\n\n[Tool result: get_weather]\n18 C\n\nMild.\n[The End" in engine.calls[0][0].prompt
    assert "SECRET" not in engine.calls[0][0].prompt


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "user"},
        {"role": "user", "content": None},
        {"role": "tool", "name": "sum"},
        {"role": "assistant", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "assistant", "function_call": None, "refusal": None, "audio": None},
        {"role": "assistant", "content": None, "annotations": [{"type": "url_citation"}]},
        {"role": "assistant", "reasoning_content": "", "refusal": ""},
    ],
)
async def test_a_turn_that_says_nothing_is_refused(serve: Serve, turn: Any) -> None:
    async with serve(FakeEngine()) as client:
        answer = await client.post("/v1/rewards", json={"query": [turn], "responses": ["A."]})
    assert answer.status_code == 422
    assert "says nothing" in answer.json()["error"]["message"]


async def test_a_stored_request_shows_what_the_judge_was_shown(serve: Serve) -> None:
    async with serve(FakeEngine()) as client:
        sent = await post(client, {"query": [USER, CALL, RESULT], "responses": ["A."], "seed": 1}, "/v1/rewards")
        stored = (await client.get(f"/v1/judgements/{sent['id']}")).json()["request"]
        again = await post(client, {"query": stored["query"], "responses": ["A."], "seed": 1}, "/v1/rewards")
    assert [turn["content"] for turn in stored["query"]][1:] == [SHOWN_CALL, "[Tool result: get_weather]\n18 C"]
    assert again["rewards"] == sent["rewards"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
async def test_every_shared_case_over_http(serve: Serve, case: Any) -> None:
    """No turn makes a route fail, and a response is what the last turn says."""
    engine = FakeEngine()
    messages = [
        turn for turn in case["messages"] if "role" in turn and isinstance(turn.get("content"), list | str | None)
    ]
    if not messages:
        pytest.skip("items of the Responses API")
    async with serve(engine, *FAST) as client:
        await post(client, {"prompt": messages, "response": "A."})
    if "SECRET" in json.dumps(messages):
        assert "SECRET" not in engine.calls[0][0].prompt
