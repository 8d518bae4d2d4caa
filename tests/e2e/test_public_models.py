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
