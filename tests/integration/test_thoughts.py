"""`thoughts=keep|drop`, and the mark of texts in unknown templates, over HTTP."""

import pytest

from grm_server.engine.fake import FakeEngine
from tests.integration.conftest import Serve
from tests.integration.counting import counters
from tests.integration.trainers import FAST, post

PROMPT = "<|im_start|>user\nCapital of France?<|im_end|>\n<|im_start|>assistant\n<think>\n"
BODY = {"query": [PROMPT + "I flatter.\n</think>\n\nParis.<|im_end|>"], "prompts": [PROMPT], "labels": [""]}


@pytest.mark.parametrize(
    ("url", "setting", "shown"), [("", "keep", True), ("&thoughts=drop", "keep", False), ("", "drop", False)]
)
async def test_thoughts_are_shown_or_dropped(serve: Serve, url: str, setting: str, shown: bool) -> None:
    engine = FakeEngine()
    async with serve(engine, *FAST, f"trainers.thoughts={setting}") as client:
        await post(client, BODY, "/get_reward?n=1" + url)
    prompt = engine.calls[0][0].prompt
    assert ("I flatter." in prompt, "</think>" in prompt) == (shown, shown)
    assert "Paris.\n[The End of Response 1]" in prompt


async def test_a_response_that_is_cut_inside_the_thought_of_its_prompt_shows_none_of_it(serve: Serve) -> None:
    """Only the prompt says that it begins inside a thought."""
    body = {"query": [PROMPT + "I flatter."], "prompts": [PROMPT], "labels": [""]}
    engine = FakeEngine()
    async with serve(engine, *FAST) as client:
        await post(client, body, "/get_reward?n=1&thoughts=drop")
        await post(client, {"prompt": PROMPT, "response": "I flatter."}, "/reward?n=1&thoughts=drop")
    for script, *_ in engine.calls:
        assert "[The Begin of Response 1]\n[reasoning without an answer]\n" in script.prompt


@pytest.mark.parametrize(("thoughts", "shown"), [("keep", True), (None, True), ("drop", False)])
@pytest.mark.parametrize("opened", [False, True])
async def test_rewards_shows_or_drops_thoughts(serve: Serve, thoughts: str | None, opened: bool, shown: bool) -> None:
    """Of the responses and of earlier turns. The trainers' setting does not apply."""
    turns = [("user", "Hi"), ("assistant", "<think>I plan.</think>Hello."), ("user", "Capital of France?")]
    query = PROMPT if opened else [{"role": role, "content": content} for role, content in turns]
    tag = "" if opened else "<think>"
    responses = [f"{tag}I flatter.\n</think>\n\n{city}" for city in ("Paris.", "Rome.")]
    # Cut inside of the thought.
    responses.append(f"{tag}I flatter.")
    engine = FakeEngine()
    async with serve(engine, *FAST, "trainers.thoughts=drop") as client:
        body = {"query": query, "responses": responses, "thoughts": thoughts, "k": 1, "seed": 1}
        sent = await post(client, body, "/v1/rewards")
        stored = (await client.get(f"/v1/judgements/{sent['id']}")).json()["request"]
    prompt = engine.calls[0][0].prompt
    assert ("I flatter." in prompt) == shown
    assert opened or ("I plan." in prompt) == shown
    assert "Paris.\n[The End of Response" in prompt
    assert stored["responses"] == (responses if shown else ["Paris.", "Rome.", "[reasoning without an answer]"])


async def test_an_unknown_template_is_warned_of_counted_and_marked(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = "<|bot_turn|>Hi<|stop_turn|>"
    async with serve(FakeEngine(), *FAST) as client:
        answers = [await post(client, {"prompt": prompt, "response": "A."}) for _ in range(2)]
        rewards = await post(client, {"query": [prompt + "A."], "prompts": [prompt]}, "/get_reward")
        known = await post(client, BODY, "/get_reward")
        seen = await counters(client)
    assert [answer["unknown_template"] for answer in answers] == [True, True]
    assert rewards["extra_logs"]["grm_unknown_template"] == [1.0]
    assert known["extra_logs"]["grm_unknown_template"] == [0.0]
    assert seen['grm_unknown_templates_total{trainer="slime"}'] == 2
    assert caplog.text.count("<|bot_turn|>") == 1
