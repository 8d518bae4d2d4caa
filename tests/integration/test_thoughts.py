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
