"""The real server on tiny checkpoints of public models: their architectures, tokenizers and chat templates."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.asking import rewards
from tests.e2e.conftest import Server, start

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", params=["qwen3", "r1-distill-qwen", "gemma-3", "gpt-oss"])
def public_server(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Iterator[Server]:
    """A server on the checkpoint of a public model, which writes noise and never closes a thought by itself."""
    yield from start("--model", str(tiny_checkpoint(request.param)))


def test_every_sample_ends_in_scores(public_server: Server) -> None:
    answer = rewards(public_server, k=4, return_samples=True)
    assert answer["k_valid"] == 4
    assert all(sample["critique"] for sample in answer["samples"])


def test_thoughts_are_counted_and_forced_leads_too(public_server: Server) -> None:
    """The format is chosen by the chat template. Gemma's knows no thoughts."""
    thinks = rewards(public_server)["format"] != "plain"
    asked = {"thinking": "on", "max_thought_tokens": 16} if thinks else {}
    answer = rewards(public_server, k=2, return_samples=True, **asked)
    assert thinks == ("gemma" not in answer["model"])
    assert answer["k_valid"] == 2
    # No mark of a verdict, and no end of a thought, is likely in noise.
    assert answer["forced_leads"] == 2
    assert (answer["usage"]["thought_tokens"] > 0) == thinks
    assert answer["usage"]["thought_tokens"] < answer["usage"]["completion_tokens"]
    for sample in answer["samples"]:
        assert (sample["thought"] is not None) == thinks
    ends = public_server.client.get("/metrics").text
    assert ('grm_text_ends_total{end="budget",text="thought"}' in ends) == thinks
